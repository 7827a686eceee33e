"""Adapts weights to another image size or number of classes, or adds a missing head."""

import math

import jax
import numpy as np

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError

# Prefixes of a head's tensors, which a new head replaces.
HEADS = ("head.", "head_dist.", "aux_head.", "text_head.", "pre_logits")


def adapt(arch, stored, resize, new_head, source):
  """Tensors for `arch` from those of another image size or number of classes, if requested.

  Args:
    arch: an `Architecture`.
    stored: `Stored`, in timm's names.
    resize: interpolate the position embedding of another image size; bicubic, as in timm.
    new_head: start a new head if the number of classes differs, or there is no head.
    source: origin of the tensors, for the error.

  Returns:
    {timm name: array}.

  Raises:
    InputError: a position embedding of another image size without `resize`, or a missing head.
  """
  tensors = dict(stored.tensors)
  if "pos_embed" in tensors and tensors["pos_embed"].ndim == 3:
    tensors["pos_embed"] = _positions(arch, stored, resize, source)
  bias = tensors.get("head.bias")
  if arch.head != "classifier":
    return tensors
  if new_head and (bias is None or bias.shape != (arch.classes,)):
    tensors = {k: v for k, v in tensors.items() if not k.startswith(HEADS)}
    weight = 0.02 * np.random.default_rng(0).standard_normal((arch.classes, arch.width))
    heads = {"head": True, "head_dist": arch.dist_head, "aux_head": arch.aux_head}
    for name in (name for name, there in heads.items() if there):
      tensors[f"{name}.weight"] = weight.astype(np.float32)
      tensors[f"{name}.bias"] = np.zeros(arch.classes, np.float32)
  elif bias is None and "head.weight" not in tensors and "blocks.0.norm1.weight" in tensors:
    raise InputError(
      f"{source} has no head for {arch.classes} classes (it was trained without labels, or its "
      "head was taken off), and cannot classify: train one, with config.init_new_head=True, or "
      "give weights with a head"
    )
  return tensors


def grid_of(position, prefix, patch_size=None, facts=None):
  """The grid of patches of a position embedding.

  Args:
    position: (1, n, d) position embedding.
    prefix: number of tokens before the patches.
    patch_size: side of a patch, pixels, if known.
    facts: `Stored.facts`, which may have the image size.

  Returns:
    Rows and columns of patches, and how many of the tokens before them have positions, too; None if
    unknown: the image is not square, and the source does not state its size.
  """
  n, size = position.shape[1], (facts or {}).get("image_size")
  # DeiT-III has no position for its class token, and DINOv2 has none for its registers.
  numbers = dict.fromkeys((prefix, 0, min(prefix, 1)))
  if size is not None and patch_size:
    rows, columns = (side // patch_size for side in sizes.height_width(size))
    if n - rows * columns in numbers:
      return rows, columns, n - rows * columns
  for of_prefix in numbers:
    side = math.isqrt(max(0, n - of_prefix))
    if side and side**2 == n - of_prefix:
      return side, side, of_prefix
  return None


def _positions(arch, stored, resize, source):
  """The (1, prefix + patches, d) position embedding at the image size of `arch`."""
  position, prefix = stored.tensors["pos_embed"], arch.prefix_tokens
  found = grid_of(position, prefix, arch.patch_size, stored.facts)
  if found is None and position.shape[1] - arch.patches in (0, min(prefix, 1), prefix):
    # Probably a rectangle, with the grid of `arch`.
    found = (*arch.grid, position.shape[1] - arch.patches)
  if found is None:
    return position  # the strict check reports it
  *grid, of_prefix = found
  if of_prefix < prefix:
    none = np.zeros((1, prefix - of_prefix, position.shape[2]), position.dtype)
    position = np.concatenate([position[:, :of_prefix], none, position[:, of_prefix:]], axis=1)
  if tuple(grid) == arch.grid:
    return position
  if resize:
    return _resized(position, prefix, grid, arch.grid)
  if position.shape[1] == prefix + arch.patches:
    # The same number of patches in another shape: the tensor's shape does not show it.
    raise InputError(
      f"{source} does not fit this model: its position embedding has {grid[0]} rows and {grid[1]} "
      f"columns of patches, and the image has {arch.grid[0]} and {arch.grid[1]}; interpolate it "
      "with init_resize=True, or set model.image_size to match it"
    )
  return position


def _resized(position, prefix, old, new):
  """Interpolates a (1, prefix + old patches, d) position embedding to new patches."""
  width = position.shape[2]
  grid = position[:, prefix:].reshape(*old, width).astype(np.float32)
  # Cubic with a = -1/2 and antialiasing, as PyTorch's bicubic interpolation with antialias=True.
  grid = jax.image.resize(grid, (*new, width), "cubic", precision=jax.lax.Precision.HIGHEST)
  grid = np.asarray(grid).reshape(1, -1, width)
  return np.concatenate([position[:, :prefix], grid], axis=1)
