"""Google's names for JAX: vision_transformer, AugReg, Scenic, and big_vision, SigLIP too."""

import numpy as np

from asvit_jax.weights.checks import MOST_BLOCKS
from asvit_jax.weights.families.base import Family
from asvit_jax.weights.families.clip import SIGLIP_PREPROCESSING

_STACK = "encoderblock"
_MOST_STACKS = 64  # a block has 16 tensors
_BLOCK = f"Transformer/{_STACK}_{{}}"
_POOL = "MAPHead_0"
_SCENICS_HEAD = "output_projection"


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
  if name.endswith((".q.bias", ".k.bias", ".v.bias")):
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


def _spread(tensors):
  """The blocks that big_vision stacks along a first axis, as tensors of their own."""
  found = {}
  if sum(f"{_STACK}/" in name for name in tensors) > _MOST_STACKS:
    return tensors
  for name, value in tensors.items():
    before, stack, after = name.partition(f"{_STACK}/")
    if stack and np.ndim(value) > 0 and len(value) <= MOST_BLOCKS:
      found |= {f"{before}{_STACK}_{i}/{after}": part for i, part in enumerate(value)}
    else:
      found[name] = value
  return found


def _seen(tensors, prefix):
  """The fact `heads`, which only this family's tensors show, and those of big_vision's networks."""
  found = {}
  for name, value in tensors.items():
    stacked = f"/{_STACK}/" in name
    if name.endswith("/query/kernel") and np.ndim(value) == 3 + stacked:
      found["heads"] = value.shape[1 + stacked]
      break
  scenic = f"{prefix}{_SCENICS_HEAD}/kernel" in tensors
  if scenic or f"{prefix}cls" not in tensors or _pools(tensors, prefix):
    # What Scenic and big_vision compute; timm has its own for the others.
    found["activation"] = "gelu_tanh"
  return found


def _pools(tensors, prefix):
  return f"{prefix}{_POOL}/probe" in tensors


def _prepares(tensors, prefix):
  return SIGLIP_PREPROCESSING if _pools(tensors, prefix) else {}


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
    f"{_POOL}/probe": "attn_pool.latent",
    f"{_POOL}/MultiHeadDotProductAttention_0/query": "attn_pool.q",
    f"{_POOL}/MultiHeadDotProductAttention_0/key": "attn_pool.k",
    f"{_POOL}/MultiHeadDotProductAttention_0/value": "attn_pool.v",
    f"{_POOL}/MultiHeadDotProductAttention_0/out": "attn_pool.proj",
    f"{_POOL}/LayerNorm_0": "attn_pool.norm",
    f"{_POOL}/MlpBlock_0/Dense_0": "attn_pool.mlp.fc1",
    f"{_POOL}/MlpBlock_0/Dense_1": "attn_pool.mlp.fc2",
    "head": "head",
    _SCENICS_HEAD: "head",
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
  unneeded=(
    r"(params/)?(txt/.*|[tb])",
  ),  # the text tower, temperature and bias beside `params/img`
  seen=_seen,
  prepares=_prepares,
  spread=_spread,
)
