"""Which network published weights are of, by the names and shapes of their tensors."""

import dataclasses
import math
import re

from asvit_jax import vit
from asvit_jax.core.errors import InputError


def recognize(tensors, source):
  """The architecture of weights that say nothing of it.

  Everything but the number of heads follows from the tensors; that, and where to prune, is taken
  from the published network of the same dimensions.

  Args:
    tensors: {timm name: array}.
    source: where they come from, for the error.

  Returns:
    (`Architecture`, its name among `vit.VARIANTS`).

  Raises:
    InputError: they are of no published network.
  """
  try:
    found = _dimensions(tensors)
  except KeyError as error:
    raise InputError(
      f"{source} is of no network known here: it has no tensor {error}; give its architecture, and "
      "names as timm has them"
    ) from error
  for name, arch in vit.VARIANTS.items():
    same = ("width", "depth", "hidden", "stem", "qkv_bias", "aux_head")
    if all(getattr(arch, field) == found[field] for field in same):
      sizes = {field: found[field] for field in ("image_size", "patch_size", "classes")}
      return dataclasses.replace(arch, **sizes), name
  listed = ", ".join(f"{field} {value}" for field, value in found.items())
  raise InputError(
    f"{source} is of no network known here ({listed}): give its architecture, or a config"
  )


def _dimensions(tensors):
  blocks = {int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))}
  kernel = tensors["patch_embed.proj.weight"].shape[-1]
  stem = "patch"
  if "patch_embed.conv1.weight" in tensors:
    stem = "lv" if "patch_embed.bn1.weight" in tensors else "conv"
  patch_size = kernel if stem == "patch" else 2 * kernel  # the others halve the image before it
  return {
    "width": tensors["cls_token"].shape[-1],
    "depth": 1 + max(blocks, default=-1),
    "hidden": tensors["blocks.0.mlp.fc1.weight"].shape[0],
    "stem": stem,
    "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    "aux_head": "aux_head.weight" in tensors,
    "image_size": patch_size * math.isqrt(tensors["pos_embed"].shape[1] - 1),
    "patch_size": patch_size,
    "classes": tensors["head.weight"].shape[0],
  }
