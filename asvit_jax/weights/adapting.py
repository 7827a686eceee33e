"""Weights of another image size or another number of classes."""

import math

import jax
import numpy as np


def adapt(arch, tensors, resize, new_head):
  """Tensors for `arch` from those of another image size or number of classes, as asked for.

  Args:
    arch: an `Architecture`.
    tensors: {timm name: array}.
    resize: interpolate the position embedding of another image size; bicubic, as timm does it.
    new_head: start a new head where the number of classes differs.

  Returns:
    {timm name: array}.
  """
  tensors = dict(tensors)
  position = tensors.get("pos_embed")
  if resize and position is not None and position.shape[1] != 1 + arch.patches:
    tensors["pos_embed"] = _resized(position, arch)
  bias = tensors.get("head.bias")
  if new_head and bias is not None and bias.shape != (arch.classes,):
    heads = ("head", "aux_head")[: 1 + arch.aux_head]
    weight = 0.02 * np.random.default_rng(0).standard_normal((arch.classes, arch.width))
    for name in heads:
      tensors[f"{name}.weight"] = weight.astype(np.float32)
      tensors[f"{name}.bias"] = np.zeros(arch.classes, np.float32)
  return tensors


def _resized(position, arch):
  """(1, 1 + old patches, d) position embedding -> (1, 1 + patches, d)."""
  old, new = math.isqrt(position.shape[1] - 1), math.isqrt(arch.patches)
  if 1 + old * old != position.shape[1]:
    return position  # of no square image: the strict check names it
  width = position.shape[2]
  grid = position[:, 1:].reshape(old, old, width).astype(np.float32)
  grid = jax.image.resize(grid, (new, new, width), "cubic")
  return np.concatenate([position[:, :1], np.asarray(grid).reshape(1, -1, width)], axis=1)
