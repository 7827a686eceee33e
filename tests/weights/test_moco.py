"""MoCo-v3's checkpoints: two encoders, each with a projector for a head, and a predictor."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
import tiny
from test_weight_files import torch  # noqa: F401
from test_weights import assert_identical

from asvit_jax import weights
from asvit_jax.core.errors import InputError
from asvit_jax.network import load

# Its small ViT: 12 heads.
ARCH = tiny.arch(width=24, heads=12, depth=2, prune_before=(1,))
PARAMS = {k: v for k, v in tiny.params(ARCH.dense).items() if k != "head"}


def checkpoint():
  """{name: array} as `moco.builder.MoCo_ViT`'s state_dict is, of a network in parallel."""
  encoder = {k: v for k, v in weights.to_timm(tiny.params(ARCH.dense)).items() if k[:4] != "head"}
  projector = {
    **{f"head.{i}.weight": np.ones((8, 8), np.float32) for i in (0, 3, 6)},
    **{f"head.{i}.{leaf}": np.ones(8, np.float32) for i in (1, 4) for leaf in ("weight", "bias")},
    **{
      f"head.{i}.running_{leaf}": np.ones(8, np.float32)
      for i in (1, 4, 7)
      for leaf in ("mean", "var")
    },
    **{f"head.{i}.num_batches_tracked": np.array(7) for i in (1, 4, 7)},
  }
  predictor = {k.replace("head", "module.predictor"): v for k, v in projector.items()}
  both = encoder | projector
  base = {f"module.base_encoder.{k}": v for k, v in both.items()}
  momentum = {f"module.momentum_encoder.{k}": np.asarray(v + 1) for k, v in both.items()}
  return base | momentum | predictor


KEYS = {
  "base_encoder": 0,
  "module.base_encoder": 0,
  "momentum_encoder": 1,
  "module.momentum_encoder": 1,
}


@pytest.mark.parametrize("key", KEYS)
def test_one_encoder_is_chosen_and_what_a_classifier_does_not_need_is_left_out(
  tmp_path, key, capsys
):
  path = tmp_path / "w.safetensors"
  safetensors.numpy.save_file(checkpoint(), path)
  with pytest.raises(
    InputError, match=r"with the prefixes 'module\.base_encoder', 'module\.momentum_"
  ):
    load(path, ARCH)
  network = load(path, ARCH, key=key, new_head=True)
  found = {k: v for k, v in network.params.items() if k != "head"}
  for name, value in weights.to_timm(PARAMS).items():
    np.testing.assert_array_equal(weights.to_timm(found)[name], value + KEYS[key])
  assert "skipped tensors that the classifier does not need: " in capsys.readouterr().err
  with pytest.raises(InputError, match="it has 12 heads, not 6"):  # shapes would not tell
    load(path, dataclasses.replace(ARCH, heads=6), key=key, new_head=True)
  assert load(path, key=key, new_head=True, classes=4).arch.heads == 12


def test_it_is_read_as_its_authors_publish_it(tmp_path, torch):  # noqa: F811
  state = {name: torch.tensor(value) for name, value in checkpoint().items()}
  content = {"epoch": 300, "arch": "vit_small", "state_dict": state, "optimizer": {"state": {}}}
  torch.save(content, tmp_path / "vit-s-300ep.pth.tar")
  network = load(tmp_path / "vit-s-300ep.pth.tar", ARCH, key="base_encoder", new_head=True)
  assert_identical({k: v for k, v in network.params.items() if k != "head"}, PARAMS)


def test_its_stem_of_convolutions_is_refused_by_name(tmp_path):
  tensors = checkpoint()
  for encoder in ("module.base_encoder", "module.momentum_encoder"):
    del tensors[f"{encoder}.patch_embed.proj.weight"], tensors[f"{encoder}.patch_embed.proj.bias"]
    tensors[f"{encoder}.patch_embed.proj.0.weight"] = np.ones((3, 3, 3, 3), np.float32)
  safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
  with pytest.raises(InputError, match=r"looks like a network whose stem is several convolutions"):
    load(tmp_path / "w.safetensors", ARCH, key="base_encoder", new_head=True)
