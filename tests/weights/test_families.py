"""Weights in the names of others; `test_libraries` holds them against the libraries themselves."""

import dataclasses
import json
import sys
import types

import ml_dtypes
import namings
import numpy as np
import pytest
import safetensors.numpy
import tiny
from test_weights import assert_identical

from asvit_jax import vit, weights
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import load, load_configured
from asvit_jax.weights import formats

ARCH = tiny.arch(depth=3, prune_before=(1, 2))
DISTILLED = dataclasses.replace(ARCH, dist_token=True, dist_head=True)
DEIT3 = dataclasses.replace(ARCH, layer_scale=True)
CLASSES = ("ant", "bee", "cat", "dog", "eel")
CONFIG = {
  "model_type": "vit",
  "architectures": ["ViTForImageClassification"],
  "num_attention_heads": 3,
  "layer_norm_eps": 1e-12,
  "image_size": 32,
  "hidden_act": "gelu",
  "id2label": {str(i): name for i, name in enumerate(CLASSES)},
}
PROCESSOR = {
  "image_mean": [0.5, 0.5, 0.5],
  "image_std": [0.5, 0.5, 0.5],
  "do_resize": True,
  "resample": 2,
  "size": {"height": 32, "width": 32},
}
HALVES = Preprocessing(1.0, (0.5,) * 3, (0.5,) * 3, "bilinear", "squash")


def tensors_of(arch):
  """timm's, of a dense network; without positions of the class token where DeiT-III has none."""
  params = dict(tiny.params(arch.dense))
  if arch.layer_scale:
    params["pos_embed"] = params["pos_embed"].at[:, 0].set(0.0)
  return params, weights.to_timm(params)


def save(path, tensors):
  path.parent.mkdir(exist_ok=True)
  tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
  safetensors.numpy.save_file(tensors, path)
  return path


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("in_memory", [False, True], ids=["saved", "in memory"])
def test_a_directory_of_transformers_says_all_that_it_is(tmp_path, shards, in_memory):
  params, tensors = tensors_of(ARCH)
  theirs = namings.transformers(tensors, in_memory=in_memory)
  place = namings.write_repository(tmp_path / "vit", theirs, CONFIG, PROCESSOR, shards)
  network = load(place)
  assert_identical(network.params, params)
  assert network.arch == dataclasses.replace(ARCH, norm_epsilon=1e-12)
  assert network.preprocessing == HALVES
  assert network.classes == CLASSES
  if shards > 1:
    (place / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"the shard model-00002-of-00003\.safetensors that"):
      load(place)
  else:  # the file alone, with its configs beside it
    assert load(place / "model.safetensors").preprocessing == HALVES


def test_deit_of_transformers_with_both_heads_and_with_one(tmp_path):
  params, tensors = tensors_of(DISTILLED)
  config = CONFIG | {"model_type": "deit"}
  theirs = namings.transformers(tensors, "deit")
  network = load(namings.write_repository(tmp_path / "both", theirs, config))
  assert_identical(network.params, params)
  assert (network.arch.dist_token, network.arch.dist_head) == (True, True)
  one = {k: v for k, v in tensors.items() if not k.startswith("head_dist")}
  theirs = namings.transformers(one, "deit")
  network = load(namings.write_repository(tmp_path / "one", theirs, config))
  assert (network.arch.dist_token, network.arch.dist_head) == (True, False)


def test_google_s_npz_has_its_own_mean_and_std_and_says_its_heads(tmp_path, capsys):
  params, tensors = tensors_of(ARCH)
  np.savez(tmp_path / "B_16.npz", **namings.google(tensors, ARCH.heads))
  network = load(tmp_path / "B_16.npz")
  assert_identical(network.params, params)
  assert network.arch == ARCH
  assert network.preprocessing == Preprocessing(0.9, (0.5,) * 3, (0.5,) * 3)
  assert "does not state its preprocessing; that of" in capsys.readouterr().err
  config = tiny.config("", **OWN | {"data.mean": (0.4, 0.4, 0.4)})  # told otherwise
  assert load_configured(tmp_path / "B_16.npz", tiny.plan(config)).preprocessing.mean == (0.4,) * 3
  config.model.heads = 6
  with pytest.raises(InputError, match="it has 3 heads, not 6"):
    load_configured(tmp_path / "B_16.npz", tiny.plan(config))


def test_torchvision_s_names_and_bilinear_resizing(tmp_path):
  params, tensors = tensors_of(ARCH)
  network = load(save(tmp_path / "vit.safetensors", namings.torchvision(tensors)), ARCH)
  assert_identical(network.params, params)
  assert network.preprocessing == Preprocessing(interpolation="bilinear")


# The dimensions of `ARCH` as keys of a config; what else it is, the weights say.
OWN = {
  "model.variant": "own",
  "model.width": 24,
  "model.heads": 3,
  "model.depth": 3,
  "model.prune_before": (1, 2),
  "model.num_classes": 5,
  "model.image_size": 32,
  "model.patch_size": 8,
}


@pytest.mark.parametrize("arch", [DISTILLED, DEIT3], ids=["distilled", "deit3"])
def test_a_config_leaves_open_what_only_the_weights_know(tmp_path, arch):
  params, tensors = tensors_of(arch)
  theirs = namings.deit3(tensors) if arch == DEIT3 else tensors
  network = load_configured(
    save(tmp_path / "w.safetensors", theirs), tiny.plan(tiny.config("", **OWN))
  )
  assert_identical(network.params, params)
  assert network.arch == arch
  network.save(tmp_path / "again.safetensors")
  assert (
    load_configured(tmp_path / "again.safetensors", tiny.plan(tiny.config("", **OWN))).arch == arch
  )
  assert load(tmp_path / "again.safetensors").arch == arch


PREFIXED = {
  "module": lambda t: {f"module.{k}": v for k, v in t.items()},
  "compiled": lambda t: {f"_orig_mod.module.{k}": v for k, v in t.items()},
  "lightning": lambda t: {f"model.{k}": v for k, v in t.items()},
  "backbone and head": lambda t: {
    k if k[:4] == "head" else f"backbone.{k}": v for k, v in t.items()
  },
  "transformers": lambda t: {f"module.model.{k}": v for k, v in namings.transformers(t).items()},
}


@pytest.mark.parametrize("prefix", PREFIXED)
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_prefixes_go_and_short_floats_widen(tmp_path, prefix, kind):
  _, tensors = tensors_of(ARCH)
  short = {k: v.astype(getattr(ml_dtypes, kind, kind)) for k, v in tensors.items()}
  path = save(tmp_path / "w.safetensors", PREFIXED[prefix](short))
  loaded = load_configured(path, tiny.plan(tiny.config("", **OWN)))
  for name, value in weights.to_timm(loaded.params).items():
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, short[name].astype(np.float32))


def test_of_several_networks_in_a_file_one_is_chosen_by_key(tmp_path):
  params, tensors = tensors_of(ARCH)
  both = {f"student.backbone.{k}": v for k, v in tensors.items()}
  both |= {f"teacher.backbone.{k}": v + 1 for k, v in tensors.items()}
  path = save(tmp_path / "dino.safetensors", both)
  with pytest.raises(InputError, match=r"'student\.backbone', 'teacher\.backbone': choose one"):
    load(path, ARCH)
  with pytest.raises(InputError, match="and 'ema' is not one of them"):
    load(path, ARCH, key="ema")
  for key, more in (("teacher", 1), ("student.backbone", 0)):
    bias = load(path, ARCH, key=key).params["norm"]["bias"]
    np.testing.assert_array_equal(bias, params["norm"]["bias"] + more)
  beside = tensors | {f"ema.{k}": v + 1 for k, v in tensors.items()}
  for key, more in (("", 0), ("ema", 1)):
    bias = load(save(path, beside), ARCH, key=key).params["norm"]["bias"]
    np.testing.assert_array_equal(bias, params["norm"]["bias"] + more)
  with pytest.raises(
    InputError, match=r"'model_ema' is not one of them|'model_ema' cannot choose one"
  ):
    load(save(path, tensors), ARCH, key="model_ema")


@pytest.mark.parametrize("family", ["mae", "dino", "transformers"])
def test_weights_without_a_head_get_a_new_one_when_asked_for(tmp_path, family, capsys):
  params, tensors = tensors_of(ARCH)
  headless = {k: v for k, v in tensors.items() if not k.startswith("head")}
  extra, zeros = {}, np.zeros((1, 4), np.float32)
  if family == "mae":
    extra = {
      "mask_token": zeros,
      "decoder_embed.weight": zeros,
      "decoder_blocks.0.norm1.bias": zeros,
    }
  elif family == "dino":
    extra = {"head.mlp.0.weight": zeros, "head.last_layer.weight_g": zeros}
  else:
    headless = namings.transformers(headless)
    extra = {"vit.pooler.dense.weight": zeros, "decoder.mask_token": zeros}
  path = save(tmp_path / "w.safetensors", headless | extra)
  config = tiny.config("", **OWN)
  with pytest.raises(InputError, match=r"has no head for 5 classes.*init_new_head=True"):
    load_configured(path, tiny.plan(config))
  said = capsys.readouterr().err
  assert "skipped tensors that the classifier does not need: " in said
  assert all(name in said for name in extra)
  loaded = load_configured(path, tiny.plan(config), new_head=True).params
  assert loaded["head"]["kernel"].shape == (24, 5)
  assert np.abs(loaded["head"]["kernel"]).max() > 0
  assert_identical({k: v for k, v in loaded.items() if k != "head"}, without_head(params))
  with pytest.raises(InputError, match="has no head, and so no number of classes"):
    load(path)


def without_head(params):
  return {k: v for k, v in params.items() if k != "head"}


def test_a_representation_layer_goes_with_the_head_that_reads_it(tmp_path):
  _, tensors = tensors_of(ARCH)
  theirs = namings.google(tensors, 3) | {
    "pre_logits/kernel": np.eye(24),
    "pre_logits/bias": np.ones(24),
  }
  np.savez(tmp_path / "in21k.npz", **theirs)
  with pytest.raises(InputError, match="unexpected pre_logits/kernel"):
    load(tmp_path / "in21k.npz")
  assert load(tmp_path / "in21k.npz", new_head=True, classes=7).params["head"]["bias"].shape == (7,)


CLIP = dataclasses.replace(
  ARCH, norm_pre=True, patch_bias=False, head="projection", classes=6, norm_epsilon=1e-5
)
SIGLIP = dataclasses.replace(
  ARCH, class_token=False, pool="map", head="none", classes=24, activation="gelu_tanh"
)
QUICK = {"width": 24, "head_width": 8, "layers": 3, "image_size": 32, "patch_size": 8}
QUICK = {"model_cfg": {"embed_dim": 6, "quick_gelu": True, "vision_cfg": QUICK}}


def test_openclip_s_image_tower_and_its_activation(tmp_path, capsys):
  params, tensors = tensors_of(CLIP)
  place = save(tmp_path / "w" / "open_clip_model.safetensors", namings.openclip(tensors)).parent
  network = load(place / "open_clip_model.safetensors", CLIP)  # no config: OpenCLIP's default
  assert_identical(network.params, params)
  assert network.preprocessing.mean == (0.48145466, 0.4578275, 0.40821073)
  (place / "open_clip_config.json").write_text(json.dumps(QUICK))
  network = load(place)
  assert_identical(network.params, params)
  assert network.arch == dataclasses.replace(CLIP, activation="quick_gelu")
  with pytest.raises(InputError, match="it has activation 'quick_gelu', not 'gelu', as the config"):
    load(place, CLIP)
  started = load(place, new_head=True, classes=7)
  assert (started.arch.head, started.params["head"]["bias"].shape) == ("classifier", (7,))
  # OpenAI's own files have a resolution among their tensors.
  (place / "open_clip_config.json").unlink()
  theirs = namings.openclip(tensors) | {"input_resolution": np.float32(32)}
  config = tiny.config("", **OWN | {"model.num_classes": 6})
  loaded = load_configured(save(place / "a.safetensors", theirs), tiny.plan(config))
  assert loaded.arch.activation == "quick_gelu"
  assert "activation quick_gelu, as no config states it" in capsys.readouterr().err
  del theirs["visual.ln_pre.bias"]
  with pytest.raises(InputError, match=r"missing norm_pre\.bias"):
    load(save(place / "a.safetensors", theirs), CLIP)


@pytest.mark.parametrize("stacked", [True, False])
def test_big_vision_s_siglip_beside_its_text_tower(tmp_path, stacked, capsys):
  params, tensors = tensors_of(SIGLIP)
  np.savez(tmp_path / "w.npz", **namings.big_vision(tensors, 3, stacked))
  network = load(tmp_path / "w.npz")
  assert_identical(network.params, params)
  assert network.arch == SIGLIP
  assert network.preprocessing == Preprocessing(1.0, (0.5,) * 3, (0.5,) * 3, "bicubic", "squash")
  assert "activation gelu_tanh, as no config states it" in capsys.readouterr().err
  with pytest.raises(InputError, match=r"(?s)missing cls_token.*unexpected attn_pool\.latent"):
    load(tmp_path / "w.npz", dataclasses.replace(ARCH, head="none", classes=24))


def test_dinov2_s_registers_have_no_positions(tmp_path):
  arch = dataclasses.replace(ARCH, registers=4, layer_scale=True)
  params, tensors = tensors_of(arch)
  position = np.array(tensors.pop("pos_embed"))
  tensors["register_tokens"] = tensors.pop("reg_token")
  theirs = tensors | {"pos_embed": np.delete(position, range(1, 5), axis=1)}
  network = load(save(tmp_path / "w.safetensors", theirs), arch)
  position[:, 1:5] = 0
  np.testing.assert_array_equal(network.params["pos_embed"], position)
  np.testing.assert_array_equal(network.params["reg_token"], params["reg_token"])


OTHERS = {
  "CoCa": "visual.attn_pool.query",
  "BEiT": "blocks.0.attn.relative_position_bias_table",
  "SwiGLU": "blocks.0.mlp.w12.weight",
  "Swin": "layers.0.blocks.0.attn.qkv.weight",
  "ResNet": "layer1.0.conv1.weight",
  "ConvNeXt": "stages.0.blocks.0.conv_dw.weight",
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("inside", [True, False], ids=["of a ViT", "alone"])
def test_networks_of_other_blocks_are_refused_by_name(tmp_path, what, inside):
  tensors = tensors_of(ARCH)[1] if inside else {}
  path = save(tmp_path / "w.safetensors", tensors | {OTHERS[what]: np.zeros(3, np.float32)})
  with pytest.raises(
    InputError, match=f"w.safetensors looks like .*{what}.*whose blocks are not supported"
  ):
    load(path, ARCH)


@pytest.mark.parametrize(
  ("config", "said"),
  [
    ({"model_type": "swin"}, "looks like a network of model_type 'swin'"),
    ({"model_type": "vit", "hidden_act": "quick_gelu"}, "activation 'quick_gelu'"),
    ({"architecture": "vit", "num_features": 24, "global_pool": "avg"}, "it has pool 'avg', not"),
    ({"architecture": "vit", "num_features": 24, "global_pool": "max"}, "global_pool is 'max'"),
    ({"model_type": "vit", "hidden_act": "relu"}, "activation 'relu'"),
    ({"pretrained_cfg": {"interpolation": "random"}}, "interpolation 'random' of its config"),
  ],
)
def test_what_only_a_config_shows_is_refused_too(tmp_path, config, said):
  place = namings.write_repository(tmp_path / "w", tensors_of(ARCH)[1], config)
  with pytest.raises(InputError, match=said):
    load(place, ARCH)


def test_timm_s_config_says_how_images_are_prepared(tmp_path):
  arch = dataclasses.replace(ARCH, image_size=(16, 64))
  params, tensors = tensors_of(arch)
  config = {
    "architecture": "vit_tiny_patch16_224",
    "num_features": 24,
    "global_pool": "token",
    "model_args": {"img_size": [16, 64], "num_heads": 3},
    "label_names": CLASSES,
    "pretrained_cfg": {
      "input_size": [3, 32, 32],
      "crop_pct": 0.95,
      "crop_mode": "center",
      "interpolation": "bilinear",
      "mean": [0.5, 0.5, 0.5],
      "std": [0.25, 0.25, 0.25],
    },
  }
  network = load(namings.write_repository(tmp_path / "w", tensors, config))
  assert_identical(network.params, params)
  # As many patches as a square has: only the config tells.
  assert network.arch == arch
  assert network.preprocessing == Preprocessing(0.95, (0.5,) * 3, (0.25,) * 3, "bilinear")
  assert network.classes == CLASSES


def test_an_error_shows_missing_and_unexpected_side_by_side_and_whose_names_they_are(tmp_path):
  theirs = namings.transformers(tensors_of(ARCH)[1])
  theirs["vit.layernorm.gamma"] = theirs.pop("vit.layernorm.weight")
  with pytest.raises(InputError) as caught:
    load(save(tmp_path / "w.safetensors", theirs), ARCH)
  said = str(caught.value)
  assert "its names look like those of Hugging Face transformers' ViT" in said
  assert said.splitlines()[-1] == "  missing norm.weight   unexpected vit.layernorm.gamma"
  theirs["vit.encoder.layer.0.attention.attention.query.extra"] = np.zeros(3)
  del theirs["vit.encoder.layer.1.attention.attention.key.bias"]
  with pytest.raises(InputError) as caught:  # two thirds of a tensor are none
    load(save(tmp_path / "w.safetensors", theirs), ARCH)
  assert "missing blocks.1.attn.qkv.bias" in str(caught.value)
  assert "unexpected vit.encoder.layer.1.attention.attention.query.bias" in str(caught.value)
  with pytest.raises(InputError, match="its names are unknown"):
    load(save(tmp_path / "o.safetensors", {"a": np.zeros(3)}), ARCH)


@pytest.mark.parametrize("source", ["w.npz", "w/config.json", "w/model.safetensors.index.json"])
def test_a_damaged_file_is_an_input_error(tmp_path, source):
  place = namings.write_repository(tmp_path / "w", {"a": np.zeros(3)}, CONFIG, shards=2)
  path = tmp_path / source
  path.write_bytes(b"{not it")
  with pytest.raises(InputError, match=r"(not a readable .npz|is not JSON|not an index)"):
    formats.read(path if source.endswith("npz") else place)


def test_a_repository_of_the_hub_is_fetched_file_by_file(tmp_path, monkeypatch):
  params, tensors = tensors_of(ARCH)
  place = namings.write_repository(
    tmp_path / "vit", namings.transformers(tensors), CONFIG, shards=2
  )
  hub, asked = fake_hub(place), []
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  fetch = hub.hf_hub_download
  hub.hf_hub_download = lambda *names, revision: (asked.append((*names, revision)), fetch(*names))[
    1
  ]
  assert_identical(load("hf:owner/name@v1").params, params)
  assert {("owner/name", "v1")} == {(name, revision) for name, _, revision in asked}
  assert [file for _, file, _ in asked][:2] == ["config.json", "preprocessor_config.json"]
  for file in place.glob("model*"):
    file.unlink()
  with pytest.raises(InputError, match=r"the repository has none of model\.safetensors, pytorch_m"):
    load("hf:owner/name")
  hub.hf_hub_download = lambda *names, revision: (_ for _ in ()).throw(OSError("no network"))
  with pytest.raises(InputError, match=r"hf:owner/name: cannot be fetched \(no network\)"):
    load("hf:owner/name")


class EntryNotFoundError(Exception):
  pass


def fake_hub(place):
  """A hub that has one repository, the files of a directory."""

  def download(repository, file, revision=None):
    if not (place / file).is_file():
      raise EntryNotFoundError(file)
    return str(place / file)

  errors = types.SimpleNamespace(EntryNotFoundError=EntryNotFoundError)
  return types.SimpleNamespace(hf_hub_download=download, errors=errors)


@pytest.mark.parametrize("arch", [ARCH, DISTILLED, DEIT3], ids=["vit", "distilled", "deit3"])
def test_resize_to_a_rectangle_interpolates_each_axis(tmp_path, arch):
  _, tensors = tensors_of(arch)
  # A plane stays a plane inside, whatever the interpolation.
  rows, columns = np.mgrid[:4, :4] + 0.5
  plane = np.stack([rows / 4, columns / 4] + [np.ones((4, 4))] * 22, -1).astype(np.float32)
  prefix = tensors["pos_embed"][:, : arch.prefix_tokens]
  tensors["pos_embed"] = np.concatenate([prefix, plane.reshape(1, 16, 24)], axis=1)
  theirs = namings.deit3(tensors) if arch == DEIT3 else tensors
  path = save(tmp_path / "w.safetensors", theirs)
  wanted = dataclasses.replace(arch, image_size=(32, 96))
  with pytest.raises(InputError, match="pos_embed has shape"):
    load(path, wanted)
  position = np.asarray(load(path, wanted, resize=True).params["pos_embed"])
  np.testing.assert_array_equal(position[:, : arch.prefix_tokens], prefix)
  grid = position[0, arch.prefix_tokens :].reshape(4, 12, 24)
  np.testing.assert_allclose(grid[..., 0], np.repeat(plane[:, :1, 0], 12, axis=1), atol=1e-6)
  inside = (np.arange(12) + 0.5)[4:-4] / 12
  np.testing.assert_allclose(grid[0, 4:-4, 1], inside, atol=1e-6)
  np.testing.assert_allclose(grid[..., 2:], 1, atol=1e-6)


def test_as_many_patches_in_another_shape_are_not_taken_as_they_are(tmp_path):
  path = tmp_path / "w.safetensors"
  tiny.network(ARCH.dense).save(path)
  wanted = dataclasses.replace(ARCH, image_size=(16, 64))
  config = tiny.config("", **OWN | {"model.image_size": "16x64"})
  with pytest.raises(InputError, match=r"image_size 32, not \(16, 64\)"):
    load_configured(path, tiny.plan(config))
  save(path, tensors_of(ARCH)[1])  # which does not say what it is
  with pytest.raises(
    InputError, match=r"has 4 rows and 4 columns of patches, and the image has 2 and 8"
  ):
    load_configured(path, tiny.plan(config))
  network = load_configured(path, tiny.plan(config), resize=True)
  assert (network.arch, network.params["pos_embed"].shape) == (wanted, (1, 17, 24))
  assert vit.specs(wanted.dense)["pos_embed"].shape == (1, 17, 24)


def test_a_dictionary_of_shards_that_lists_what_is_not_there_is_refused(tmp_path):
  place = namings.write_repository(
    tmp_path / "w", {"a": np.zeros(3), "b": np.ones(2)}, {}, shards=2
  )
  index = place / "model.safetensors.index.json"
  listed = json.loads(index.read_text())
  listed["weight_map"]["c"] = listed["weight_map"]["a"]
  index.write_text(json.dumps(listed))
  with pytest.raises(InputError, match=r"1 tensors that .* lists are in no shard, c among them"):
    formats.read(place)
