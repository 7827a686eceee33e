"""Google's names for JAX: vision_transformer, AugReg, and big_vision with a class token."""

import numpy as np

from asvit_jax.weights.families.base import Family

_BLOCK = "Transformer/encoderblock_{}"


def _block(first_norm, attention, second_norm, mlp):
  return {
    f"{_BLOCK}/{first_norm}": "blocks.{}.norm1",
    f"{_BLOCK}/{attention}/query": "blocks.{}.attn.q",
    f"{_BLOCK}/{attention}/key": "blocks.{}.attn.k",
    f"{_BLOCK}/{attention}/value": "blocks.{}.attn.v",
    f"{_BLOCK}/{attention}/out": "blocks.{}.attn.proj",
    f"{_BLOCK}/{second_norm}": "blocks.{}.norm2",
    f"{_BLOCK}/{mlp}/Dense_0": "blocks.{}.mlp.fc1",
    f"{_BLOCK}/{mlp}/Dense_1": "blocks.{}.mlp.fc2",
  }


def _layout(name, value):
  """Converts Flax kernels, (…in, …out) with separate axes for heads, to PyTorch's layout."""
  if name.endswith(("attn.q.bias", "attn.k.bias", "attn.v.bias")):
    return value.reshape(-1)  # (h, c)
  if not name.endswith(".weight") or value.ndim == 1:
    return value
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)
  if value.ndim == 3:  # (d, h, c) of q, k, v; (h, c, d) of the projection after attention
    value = (
      value.reshape(value.shape[0], -1) if "proj" not in name else value.reshape(-1, value.shape[2])
    )
  return value.T


def _seen(tensors, prefix):
  """The fact `heads`, which only this family's tensors show."""
  for name, value in tensors.items():
    if name.endswith("/query/kernel") and np.ndim(value) == 3:
      return {"heads": value.shape[1]}
  return {}


FAMILY = Family(
  title="Google's ViT (.npz)",
  marker="embedding/kernel",
  table={
    "cls": "cls_token",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "pos_embedding": "pos_embed",
    "embedding": "patch_embed.proj",
    **_block("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
    **_block("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
    "Transformer/encoder_norm": "norm",
    "head": "head",
  },
  leaves={"kernel": "weight", "scale": "weight"},
  separator="/",
  layout=_layout,
  # timm's values; Google's own pipeline has the same mean and std.
  preprocessing={
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "crop_ratio": 0.9,
    "interpolation": "bicubic",
  },
  seen=_seen,
)
