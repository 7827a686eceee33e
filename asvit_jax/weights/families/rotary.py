"""Networks with rotary positions: DINOv3 and EVA-02, in their authors' and in timm's names.

Most of their files do not have the rotary positions, which follow from a few numbers. Their kind is
told by the other tensors; numbers that no tensor shows are those of the published networks, unless
a config.json beside the file states them.

| network | told by |
|---|---|
| DINOv3 | registers, a class token and no position embedding |
| EVA-02 | separate biases or projections of queries and values, gated MLPs, a position embedding |
| timm's `vit_…_rope_reg1_gap_256` | registers, no class token and no position embedding |
"""

import re

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.vit.rope import BASES

_GRID = (16, 16)  # of EVA-02's pretraining: images of 224 pixels, patches of 14
_PERIODS = "rope_embed.periods"
_PUBLISHED = 100.0  # DINOv3's base
_REGISTERS = ("reg_token", "register_tokens", "storage_tokens")

# The modules of a block, for the table of timm's names.
BLOCK = {
  **{f"blocks.{{}}.attn.{part}_proj": f"blocks.{{}}.attn.{part}" for part in "qkv"},
  "blocks.{}.attn.q_bias": "blocks.{}.attn.q.bias",
  "blocks.{}.attn.v_bias": "blocks.{}.attn.v.bias",
  "blocks.{}.attn.q_norm": "blocks.{}.attn.q_norm",
  "blocks.{}.attn.k_norm": "blocks.{}.attn.k_norm",
  "blocks.{}.mlp.fc1_g": "blocks.{}.mlp.fc1.gate",
  "blocks.{}.mlp.fc1_x": "blocks.{}.mlp.fc1.up",
  "blocks.{}.mlp.norm": "blocks.{}.mlp.norm",
  # As the authors of EVA-02, DINOv2 and DINOv3 wrote them.
  "blocks.{}.mlp.w1": "blocks.{}.mlp.fc1.gate",
  "blocks.{}.mlp.w2": "blocks.{}.mlp.fc1.up",
  "blocks.{}.mlp.w12": "blocks.{}.mlp.fc1",
  "blocks.{}.mlp.w3": "blocks.{}.mlp.fc2",
  "blocks.{}.mlp.ffn_ln": "blocks.{}.mlp.norm",
}
UNNEEDED = (
  r"rope_embed\.periods",
  r"(blocks\.[0-9]+\.attn\.)?rope\.freqs_(cos|sin)",
  r"blocks\.[0-9]+\.attn\.(qkv\.bias_mask|k_bias)",
  r"local_cls_norm\..*",  # of DINOv3's training
)


def prepared(tensors):
  """Tensors of DINOv3's authors with the key biases that its mask leaves: zeros."""
  masks = [name for name in tensors if name.endswith(".attn.qkv.bias_mask")]
  biases = {name.removesuffix("_mask") for name in masks} & tensors.keys()
  return tensors | {name: _without_keys(tensors[name]) for name in biases}


def _without_keys(bias):
  third = len(bias) // 3
  return np.concatenate([bias[:third], np.zeros(third, bias.dtype), bias[2 * third :]])


def seen(tensors, prefix):
  """The fields of `Architecture` that the tensors show; {} for a network without rotary positions.

  Raises:
    InputError: rotary positions of another kind.
  """
  short = {name.removeprefix(prefix): value for name, value in tensors.items()}
  kind = _kind(short)
  if not kind:
    return {}
  facts = {"rope": kind}
  if "pos_embed" not in short:
    facts["pos_embed"] = False
  if kind == "dinov3":
    facts["norm_epsilon"] = 1e-5
  width = np.shape(short["patch_embed.proj.weight"])[0]
  if _PERIODS in short:
    periods = np.asarray(short[_PERIODS], np.float64)
    facts["heads"] = width // (4 * len(periods))
    facts["rope_base"] = _base(periods, prefix)
  for name, value in short.items():
    if re.fullmatch(UNNEEDED[1], name) and np.ndim(value) == 2:
      facts["heads"] = width // np.shape(value)[1]
  return facts


def usual(facts, width):
  """The values of published networks for fields that no tensor shows, {field: value}."""
  if not facts.get("rope"):
    return {}
  found, dino = {"rope_base": BASES[facts["rope"]]}, facts["rope"] == "dinov3"
  if width % 64 == 0:
    found["heads"] = width // (128 if width == 4096 else 64)  # DINOv3's 7B has wider heads
  if not facts.get("pos_embed", True):
    found["image_size"] = 224 if dino else 256
  return found if dino else found | {"rope_grid": _GRID}


def _kind(short):
  """The kind of rotary positions, `Architecture.rope`, of tensors without their prefix."""
  registers = any(name in short for name in _REGISTERS)
  if "pos_embed" not in short:
    if not registers:
      return "dinov3" if _PERIODS in short else ""
    return "dinov3" if "cls_token" in short else "eva02"
  apart = {"blocks.0.attn.q_bias", "blocks.0.attn.q_proj.weight"} & short.keys()
  return "eva02" if apart and _gated(short) else ""


def _gated(short):
  block = "blocks.0.mlp."
  first = next((f"{block}{n}.weight" for n in ("w12", "fc1") if f"{block}{n}.weight" in short), "")
  last = next((f"{block}{n}.weight" for n in ("w3", "fc2") if f"{block}{n}.weight" in short), "")
  if not first or not last:
    return any(f"{block}{n}.weight" in short for n in ("w1", "fc1_g"))
  return is_gated(short[first], short[last])


def is_gated(first, last):
  """Whether the weights of an MLP's layers, (hidden, d) and (d, hidden), are those of a SwiGLU."""
  return np.ndim(first) == np.ndim(last) == 2 and len(first) == 2 * np.shape(last)[1]


def _base(periods, prefix):
  """The base of frequencies 1/periods, which files have in bfloat16."""
  count = len(periods)
  base = periods[-1] ** (count / (count - 1)) if count > 1 and (periods > 0).all() else _PUBLISHED
  base = _PUBLISHED if abs(base / _PUBLISHED - 1) < 0.02 else float(f"{base:.3g}")
  if not np.allclose(periods, base ** (np.arange(count) / count), rtol=0.02):
    raise InputError(
      f"tensor {prefix}{_PERIODS} is {periods[:3].tolist()}…, expected the powers 0, 1/{count}, … "
      "of a base: other rotary positions are not supported"
    )
  return base
