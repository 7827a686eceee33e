"""DINOv3 and EVA-02 in the names of others; `test_rotary_libraries` has the libraries' numbers."""

import dataclasses

import namings
import numpy as np
import pytest
import tiny
from test_families import save
from test_weights import assert_identical

from asvit_jax import weights
from asvit_jax.core.errors import InputError
from asvit_jax.network import load, load_configured

# Heads of 64 channels, as both families have.
EVA = tiny.arch(
  width=64,
  heads=1,
  depth=2,
  prune_before=(1,),
  mlp_ratio=1,
  rope="eva02",
  rope_grid=(16, 16),
  swiglu=True,
  mlp_norm=True,
)
DINO = dataclasses.replace(
  EVA,
  rope="dinov3",
  rope_base=100.0,
  rope_grid=(),
  mlp_norm=False,
  pos_embed=False,
  layer_scale=True,
  norm_epsilon=1e-5,
  image_size=224,
  patch_size=16,
)


def stored(arch):
  """Parameters, and timm's tensors of them with the biases of q and v apart; keys have none."""
  params = tiny.params(arch.dense)
  tensors = weights.to_timm(params)
  for i in range(arch.depth):
    name = f"blocks.{i}.attn.qkv.bias"
    q, k, v = np.split(tensors.pop(name), 3)
    params["blocks"][i]["attn"]["qkv"]["bias"] = np.concatenate([q, np.zeros_like(k), v])
    tensors |= {f"blocks.{i}.attn.q_bias": q, f"blocks.{i}.attn.v_bias": v}
  return params, tensors


def changed(tensors, *names, apart=()):
  """Tensors of other names; modules of `apart` are cut into equal parts."""
  out = dict(tensors)
  for module, parts in apart:
    for name in [n for n in out if f".{module}." in n]:
      pieces = np.split(out.pop(name), len(parts))
      out |= {name.replace(module, part): piece for part, piece in zip(parts, pieces, strict=True)}
  for old, new in names:
    out = {name.replace(old, new): value for name, value in out.items()}
  return out


QKV = ("attn.qkv", [f"attn.{part}_proj" for part in "qkv"])


def of_eva(tensors):
  """As EVA-02's authors and timm's base and large have them, all layers apart."""
  biases = [(f"{part}_bias", f"{part}_proj.bias") for part in "qv"]
  return changed(tensors, *biases, apart=[QKV, ("mlp.fc1", ["mlp.fc1_g", "mlp.fc1_x"])])


def of_authors(tensors):
  names = ("fc1_g", "w1"), ("fc1_x", "w2"), ("fc2", "w3"), ("mlp.norm", "mlp.ffn_ln")
  out = changed(of_eva(tensors), *names, ("q_proj.bias", "q_bias"), ("v_proj.bias", "v_bias"))
  return out | {"blocks.0.attn.rope.freqs_cos": np.ones((16, 64), np.float32)}


@pytest.mark.parametrize("form", [dict, of_eva, of_authors])
def test_eva02_in_three_forms(tmp_path, form, capsys):
  params, tensors = stored(EVA)
  path = save(tmp_path / "w.safetensors", form(tensors))
  network = load(path)
  assert_identical(network.params, params)
  assert network.arch == EVA
  said = capsys.readouterr().err
  assert "published networks of eva02 is assumed: " in said
  assert "rope_grid (16, 16)" in said
  assert "rope_base 10000" in said
  with pytest.raises(InputError, match=r"its rope is 'eva02', not ''; leave model\.rope open"):
    load(path, dataclasses.replace(EVA, rope="", rope_base=0, rope_grid=()))


def of_transformers(tensors):
  biases = [(f"attn.{part}_bias", f"attn.{part}_proj.bias") for part in "qv"]
  apart = [QKV, ("mlp.fc1", ["mlp.gate_proj", "mlp.up_proj"])]
  names = (
    *biases,
    ("mlp.fc2", "mlp.down_proj"),
    ("attn.proj", "attn.o_proj"),
    (".attn.", ".attention."),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    ("blocks.", "layer."),
    ("head.", "classifier."),
    ("cls_token", "embeddings.cls_token"),
    ("patch_embed.proj", "embeddings.patch_embeddings"),
  )
  return changed(tensors, *names, apart=apart)


CONFIG = {
  "model_type": "dinov3_vit",
  "num_attention_heads": 1,
  "image_size": 224,
  "layer_norm_eps": 1e-5,
  "rope_theta": 25,
  "hidden_act": "silu",
  "use_gated_mlp": True,
}


def test_dinov3_of_transformers_takes_the_base_of_its_config(tmp_path):
  params, tensors = stored(DINO)
  place = namings.write_repository(tmp_path / "w", of_transformers(tensors), CONFIG)
  network = load(place)
  assert_identical(network.params, params)
  assert network.arch == dataclasses.replace(DINO, rope_base=25.0)
  with pytest.raises(InputError, match=r"its rope_base is 25\.0, not 100\.0; leave model\.rope_b"):
    load(place, DINO)
  network.save(tmp_path / "again.safetensors")
  assert load(tmp_path / "again.safetensors") == network
  wide = load(place, image_size=(32, 48))
  assert wide.arch.grid == (2, 3)
  assert np.isfinite(wide(tiny.images(wide.arch, 1), "dense").logits).all()
  config = tiny.config("", **OWN)
  assert load_configured(place, tiny.plan(config)).arch == network.arch
  place = namings.write_repository(
    tmp_path / "x", of_transformers(tensors), CONFIG | {"hidden_act": "gelu"}
  )
  with pytest.raises(InputError, match="activation 'gelu'"):
    load(place)


OWN = {
  "model.variant": "own",
  "model.width": 64,
  "model.heads": 1,
  "model.depth": 2,
  "model.mlp_ratio": 1.0,
  "model.num_classes": 5,
  "model.image_size": 224,
  "model.patch_size": 16,
  "model.prune_before": (1,),
}


def of_dinov3(tensors, base=100.0):
  """As DINOv3's authors have them: a bias of keys with a mask, and periods in bfloat16."""
  out = changed(tensors, ("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3"))
  out = changed(out, apart=[("mlp.fc1", ["mlp.w1", "mlp.w2"])])
  for i in range(2):
    q, v = (out.pop(f"blocks.{i}.attn.{part}_bias") for part in "qv")
    out[f"blocks.{i}.attn.qkv.bias"] = np.concatenate([q, np.full_like(q, 3), v])
    out[f"blocks.{i}.attn.qkv.bias_mask"] = np.repeat(np.float32([1, 0, 1]), len(q))
  periods = base ** (np.arange(16, dtype=np.float32) / 16)
  return out | {"rope_embed.periods": periods * np.float32(1.003), "mask_token": np.ones((1, 64))}


def test_dinov3_of_its_authors_shows_its_base_and_heads(tmp_path):
  params, tensors = stored(DINO)
  network = load(save(tmp_path / "w.safetensors", of_dinov3(tensors)))
  assert_identical(network.params, params)
  assert network.arch == DINO
  path = save(tmp_path / "b.safetensors", of_dinov3(tensors, 20.0))
  with pytest.raises(InputError, match=r"its rope_base is 20\.\d, not 100\.0"):
    load(path, DINO)
  others = of_dinov3(tensors)
  others["rope_embed.periods"] = np.linspace(1, 2, 16, dtype=np.float32)
  with pytest.raises(InputError, match="other rotary positions are not supported"):
    load(save(tmp_path / "o.safetensors", others))


def lacking(*names):
  return lambda tensors: {k: v for k, v in tensors.items() if k not in names}


DAMAGED = {
  "a gate": (of_eva, lacking("blocks.1.mlp.fc1_g.weight"), "unexpected blocks.1.mlp.fc1_x.weight"),
  "a bias": (of_eva, lacking("blocks.1.attn.v_proj.bias"), "unexpected blocks.1.attn.q_proj.bias"),
  "one of keys": (
    of_eva,
    lambda t: t | {"blocks.0.attn.k_proj.bias": np.zeros(64, np.float32)},
    "unexpected blocks.1.attn.q_proj.bias",
  ),
  "a gate of transformers": (
    of_transformers,
    lacking("layer.1.mlp.gate_proj.bias"),
    "unexpected layer.1.mlp.up_proj.bias",
  ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_every_tensor_is_used_and_every_parameter_filled(tmp_path, what):
  form, damage, said = DAMAGED[what]
  arch = EVA if form is of_eva else DINO
  tensors = damage(form(stored(arch)[1]))
  with pytest.raises(InputError, match=f"does not fit this model(?s:.)*{said}"):
    load(save(tmp_path / "w.safetensors", tensors), arch)


def test_a_plain_network_without_positions_is_damaged_not_rotary(tmp_path):
  arch = tiny.arch(depth=2, prune_before=(1,))
  tensors = weights.to_timm(tiny.params(arch.dense))
  del tensors["pos_embed"]
  with pytest.raises(InputError, match="missing pos_embed"):
    load(save(tmp_path / "w.safetensors", tensors), arch)
