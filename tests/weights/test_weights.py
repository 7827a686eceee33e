import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import safetensors.numpy
import tiny

from asvit_jax import vit, weights
from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.weights.saving import save

CONV = tiny.arch(stem="conv")


def assert_identical(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("arch", [tiny.arch(), CONV], ids=["patch", "conv"])
@pytest.mark.parametrize("thresholds", [True, False])
def test_what_was_saved_is_loaded_to_the_bit(tmp_path, arch, thresholds):
  params = tiny.params(arch if thresholds else arch.dense)
  assert vit.prunes(params) == thresholds
  save(tmp_path / "new" / "w.safetensors", params)
  assert_identical(load(tmp_path / "new" / "w.safetensors", arch).params, params)


def test_an_architecture_without_qkv_bias_is_saved_and_loaded(tmp_path):
  arch = tiny.arch(qkv_bias=False)
  save(tmp_path / "w.safetensors", tiny.params(arch))
  assert_identical(load(tmp_path / "w.safetensors", arch).params, tiny.params(arch))


def test_names_and_shapes_of_the_file_are_timms_and_the_authors():
  tensors = weights.to_timm(tiny.params(tiny.arch()))
  assert tensors["patch_embed.proj.weight"].shape == (24, 3, 8, 8)
  assert tensors["blocks.4.attn.qkv.weight"].shape == (72, 24)
  assert tensors["blocks.0.mlp.fc1.weight"].shape == (96, 24)
  assert tensors["blocks.0.norm1.weight"].shape == (24,)
  assert tensors["head.weight"].shape == (5, 24)
  assert [tensors[f"score_predictor.{i}.keep_threshold"].shape for i in range(3)] == [()] * 3
  assert len(tensors) == 4 + 5 * 12 + 4 + 3


def test_every_published_deit_t_tensor_has_its_place(shared):
  path = shared / "data" / "deit_tiny_patch16_224.safetensors"
  params = load(path, vit.VARIANTS["deit_t"]).params
  assert_identical(
    jax.tree.map(np.asarray, weights.to_timm(params)), safetensors.numpy.load_file(path)
  )


def test_tensors_in_torch_layout_compute_what_torch_would():
  # From a file's tensors to logits, against a forward that reads them as torch does.
  arch = tiny.arch(prune_before=())
  rng = np.random.default_rng(3)
  tensors = {
    name: (rng.standard_normal(t.shape) * 0.3).astype(np.float32)
    for name, t in weights.to_timm(tiny.params(arch)).items()
  }
  params = weights.from_timm(arch, tensors, "test")
  image = tiny.images(arch, 1)
  expected, _, _ = oracle.forward(tensors, image[0], arch.heads, arch.norm_epsilon)
  np.testing.assert_allclose(tiny.run_dense(arch, params, image).logits[0], expected, rtol=1e-4)


def test_the_conv_stem_reads_its_kernels_as_torch_does():
  params = tiny.params(CONV)
  tensors, image = weights.to_timm(params), tiny.images(CONV, 1)
  x = image[0].transpose(2, 0, 1).astype(np.float64)
  # XLA's "SAME" for stride 2 on an even side pads below and right only.
  x = oracle.gelu(convolve(x, tensors, "conv1", stride=2, pad=(0, 1)))
  x = oracle.gelu(convolve(x, tensors, "conv2", stride=1, pad=(1, 1)))
  x = convolve(x, tensors, "proj", stride=4, pad=(0, 0)).reshape(24, -1).T
  ours = vit.model(CONV, params).patch_embed(jnp.asarray(image))
  np.testing.assert_allclose(ours[0], x, atol=1e-5)


def convolve(x, tensors, name, stride, pad):
  """Convolution of (in, h, w) as torch defines it, with (before, after) padding."""
  weight, bias = (tensors[f"patch_embed.{name}.{leaf}"] for leaf in ("weight", "bias"))
  size = weight.shape[-1]
  x = np.pad(x, ((0, 0), pad, pad))
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
  windows = windows[:, ::stride, ::stride]
  return np.einsum("ihwab,oiab->ohw", windows, weight) + bias[:, None, None]


def test_missing_unexpected_and_misshapen_tensors_are_all_named_at_once():
  arch = tiny.arch()
  tensors = weights.to_timm(tiny.params(arch))
  del tensors["blocks.3.attn.proj.bias"], tensors["score_predictor.2.keep_threshold"]
  tensors["head_dist.weight"] = np.zeros((5, 24), np.float32)
  tensors["pos_embed"] = tensors["pos_embed"][:, :-1]
  with pytest.raises(InputError) as caught:
    weights.from_timm(arch, tensors, "FILE")
  message = str(caught.value)
  assert message.startswith(
    "FILE does not fit this model (4 problems: 2 missing, 1 unexpected, 1 of"
  )
  assert "missing blocks.3.attn.proj.bias" in message
  assert "missing score_predictor.2.keep_threshold" in message
  assert "unexpected head_dist.weight" in message
  assert "pos_embed has shape (1, 16, 24), expected (1, 17, 24)" in message


def test_a_transposed_kernel_is_refused():
  arch = tiny.arch(prune_before=())
  tensors = weights.to_timm(tiny.params(arch))
  tensors["blocks.0.mlp.fc1.weight"] = tensors["blocks.0.mlp.fc1.weight"].T
  with pytest.raises(InputError, match=r"fc1.weight has shape \(24, 96\), expected \(96, 24\)"):
    weights.from_timm(arch, tensors, "FILE")


@pytest.mark.parametrize(
  "other",
  [
    dict(width=48),
    dict(depth=6),
    dict(classes=7),
    dict(patch_size=16),
    dict(image_size=64),
    dict(stem="conv"),
    dict(mlp_ratio=2),
    dict(qkv_bias=False),
  ],
  ids=lambda other: next(iter(other)),
)
def test_weights_of_another_network_are_refused(tmp_path, other):
  save(tmp_path / "w.safetensors", tiny.params(tiny.arch(**other)))
  with pytest.raises(InputError, match=r"w\.safetensors does not fit this model") as refused:
    load(tmp_path / "w.safetensors", tiny.arch())
  said = str(refused.value)
  assert len(said.splitlines()) < 10
  differ = {"width": "width 48, not 24", "depth": "6 blocks, not 5", "classes": "classes: 7, not 5"}
  differ |= {"patch_size": "patch size 16, not 8"}
  assert {k for k, v in differ.items() if v in said} == set(differ) & set(other)


def test_thresholds_of_another_number_of_stages_are_refused(tmp_path):
  arch = tiny.arch()
  save(tmp_path / "w.safetensors", tiny.params(arch))
  with pytest.raises(InputError, match=r"unexpected score_predictor\.2\.keep_threshold"):
    load(tmp_path / "w.safetensors", dataclasses.replace(arch, prune_before=(2, 3)))
  with pytest.raises(InputError, match=r"unexpected score_predictor\.0\.keep_threshold"):
    load(tmp_path / "w.safetensors", arch.dense)


def test_an_absent_file_is_refused(tmp_path):
  with pytest.raises(InputError, match=r"none\.safetensors: no such file"):
    load(tmp_path / "none.safetensors", tiny.arch())


@pytest.mark.parametrize("size", [0, 4, 100, 20_000, -1], ids=lambda size: f"to{size}")
def test_a_truncated_file_is_refused(tmp_path, size):
  path = tmp_path / "w.safetensors"
  save(path, tiny.params(tiny.arch()))
  path.write_bytes(path.read_bytes()[:size])
  with pytest.raises(InputError, match="not a readable safetensors file"):
    load(path, tiny.arch())


def test_a_file_of_another_format_is_refused(tmp_path):
  np.savez(tmp_path / "w.npz", a=np.zeros(3))
  (tmp_path / "w.npz").rename(tmp_path / "w.safetensors")
  with pytest.raises(InputError, match="not a readable safetensors file"):
    load(tmp_path / "w.safetensors", tiny.arch())


def test_an_interrupted_save_leaves_the_file_of_before(tmp_path, monkeypatch):
  path, arch = tmp_path / "w.safetensors", tiny.arch()

  write_bytes = Path.write_bytes

  def interrupted(file, content):
    write_bytes(file, content[: len(content) // 2])
    raise KeyboardInterrupt

  def attempt():
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
      patched.setattr(Path, "write_bytes", interrupted)
      save(path, tiny.params(arch, seed=2))

  attempt()
  assert not path.exists()
  save(path, tiny.params(arch))
  attempt()
  assert_identical(load(path, arch).params, tiny.params(arch))


def test_a_path_that_cannot_be_written_is_an_input_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write weights"):
    save(tmp_path / "file" / "w.safetensors", tiny.params(tiny.arch()))
