"""Recognizes the architecture of weights by the names and shapes of their tensors."""

import dataclasses

from asvit_jax import vit
from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.vit.architecture import Architecture, stages_of
from asvit_jax.weights.adapting import grid_of
from asvit_jax.weights.checks import MOST_BLOCKS
from asvit_jax.weights.names import numbers_of_blocks

# Fields that identify a published network; the weights may differ from it in the others.
_APART = ("width", "depth", "stem", "aux_head")
# Fields that the facts of a family state: `families` finds them in the tensors.
_STATED = (
  *("norm_epsilon", "activation", "class_token", "registers", "pool", "norm_after_pool"),
  *("norm_pre", "patch_bias", "head", "text_width", "pos_embed", "rope", "rope_base"),
  *("rope_grid", "swiglu", "mlp_norm", "qk_norm"),
)
# {tensor: number of axes}, for the tensors whose shapes determine the architecture.
_AXES = {
  "patch_embed.proj.weight": 4,
  "pos_embed": 3,
  "cls_token": 3,
  "blocks.0.mlp.fc1.weight": 2,
  "head.weight": 2,
  "text_head.weight": 2,
}


def recognize(stored, source, classes=None):
  """The architecture of weights whose description is missing or incomplete.

  The tensors show most of it. The number of heads, the pruning stages and the other values that
  they do not show come from the source's facts, or from the published network of the same
  dimensions.

  Args:
    stored: `Stored`, in timm's names.
    source: origin of the weights, for the error.
    classes: number of classes, for weights without a head.

  Returns:
    (`Architecture`, its name among `vit.VARIANTS`, "" if none has the same dimensions).

  Raises:
    InputError: the architecture is not fully known.
  """
  try:
    found = _dimensions(stored, source, classes)
  except KeyError as error:
    raise InputError(
      f"{source} is of no network known here: it has no tensor {error}; give its architecture, and "
      "names as in docs/weights.md"
    ) from error
  hidden = found.pop("hidden")
  facts = stored.usual | stored.facts
  heads = facts.get("heads")
  for name, arch in vit.VARIANTS.items():
    same = arch.hidden == hidden and all(getattr(arch, f) == found[f] for f in _APART)
    if same and heads in (None, arch.heads):
      return dataclasses.replace(arch, **found), name
  if heads is not None:
    stages = stages_of(found["depth"])
    ratio = hidden / found["width"]
    return Architecture(**found, heads=heads, mlp_ratio=ratio, prune_before=stages), ""
  listed = ", ".join(f"{field} {value}" for field, value in (found | {"hidden": hidden}).items())
  raise InputError(
    f"{source} is of no network known here ({listed}): give its architecture, or a config, or the "
    "hub's config.json beside it, which gives the number of heads (num_attention_heads, or "
    "num_heads in timm's model_args)"
  )


def outputs_of(tensors):
  """The number of classes, or of features, that the head's tensors show; None without a head."""
  weight = tensors.get("text_head.weight", tensors.get("head.weight"))
  return None if weight is None else weight.shape[0]


def _dimensions(stored, source, classes):
  tensors, facts = stored.tensors, stored.usual | stored.facts
  for name, axes in _AXES.items():
    if name in tensors and tensors[name].ndim != axes:
      raise InputError(
        f"{source} is of no network known here: {name} has shape {tensors[name].shape}, expected "
        f"{axes} axes; give its architecture, and names as in docs/weights.md"
      )
  blocks = numbers_of_blocks(tensors)
  if blocks != set(range(len(blocks))) or len(blocks) > MOST_BLOCKS:
    raise InputError(
      f"{source} is of no network known here: its {len(blocks)} blocks have numbers up to "
      f"{max(blocks)}, expected 0 to {len(blocks) - 1}, and at most {MOST_BLOCKS} blocks; fetch "
      "it again, or give its architecture"
    )
  kernel = tensors["patch_embed.proj.weight"].shape[-1]
  stem = "patch"
  if "patch_embed.conv1.weight" in tensors:
    stem = "lv" if "patch_embed.bn1.weight" in tensors else "conv"
  patch_size = kernel if stem == "patch" else 2 * kernel  # other stems halve the image first
  dist_token = "dist_token" in tensors
  class_token, registers = facts.get("class_token", True), facts.get("registers", 0)
  prefix = class_token + dist_token + registers
  if facts.get("pos_embed", True):
    grid = grid_of(tensors["pos_embed"], prefix, patch_size, facts)
  else:
    grid = [side // patch_size for side in sizes.height_width(facts["image_size"])]
  if grid is None:
    raise InputError(
      f"{source}: its {tensors['pos_embed'].shape[1]} positions are of no square image: give its "
      "architecture with the image_size that it is for, (height, width)"
    )
  if classes is not None:
    facts = facts | {"head": "classifier", "text_width": 0}
  width = tensors["patch_embed.proj.weight"].shape[0]
  featured = facts.get("head") == "none"
  outputs = outputs_of(tensors)
  if classes is None and outputs is None and not featured:
    raise InputError(
      f"{source} has no head, and so no number of classes (it was trained without labels, or its "
      "head was taken off): give the number, `classes`, and `new_head`"
    )
  found = {
    "width": width,
    "depth": len(blocks),
    "hidden": tensors["blocks.0.mlp.fc1.weight"].shape[0] // (1 + facts.get("swiglu", False)),
    "stem": stem,
    "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    "layer_scale": "blocks.0.ls1.gamma" in tensors,
    "dist_token": dist_token,
    "dist_head": "head_dist.weight" in tensors,
    "aux_head": "aux_head.weight" in tensors,
    "image_size": (grid[0] * patch_size, grid[1] * patch_size),
    "patch_size": patch_size,
    "classes": classes or outputs or width,
  }
  assumed = {name: value for name, value in stored.usual.items() if name not in stored.facts}
  if assumed:
    listed = ", ".join(f"{name} {value}" for name, value in assumed.items())
    log(
      f"{source} does not state what its tensors do not show; that of the published networks of "
      f"{facts['rope']} is assumed: {listed} (keys of a config.json beside it state them)"
    )
  return found | {k: v for k, v in facts.items() if k in _STATED}
