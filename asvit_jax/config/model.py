"""The architecture and the preprocessing that a config describes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from asvit_jax import vit
from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.sparsity.complexity import check_budget
from asvit_jax.vit.architecture import stages_within

# Keys of config.model that always have a value, and the fields of `Architecture` that they set.
_ALWAYS = {"num_classes": "classes", "image_size": "image_size", "patch_size": "patch_size"}
# Keys with the name of a field of `Architecture`; None takes the variant's value.
OVERRIDES = tuple(
  field.name for field in dataclasses.fields(vit.Architecture) if field.name not in _ALWAYS.values()
)
# Fields that control pruning; they can be chosen freely for weights without thresholds.
PRUNING = (
  "prune_before",
  "prune_inside",
  "count_multiple",
  "attention",
  "score",
  "reduction",
  "score_exponents",
  "stage_weights",
  "rope_merged",
)
# Fields for which the weights take precedence over the variant.
TRAITS = (
  *("norm_epsilon", "qkv_bias", "layer_scale", "dist_token", "dist_head"),
  *("layer_scale_init", "pos_embed", "rope", "rope_base", "rope_grid"),
  *("swiglu", "mlp_norm", "qk_norm"),
  *("class_token", "registers", "pool", "norm_after_pool", "norm_pre"),
  *("activation", "patch_bias", "head", "text_width"),
)


@dataclasses.dataclass(frozen=True)
class Model:
  """The section `model` of a config: the network, and how it is computed.

  Attributes:
    variant: name of the network, see `vit.VARIANTS`.
    num_classes: number of classes of its head.
    image_size: side of the images in pixels, or (height, width).
    dtype: compute type of stem and blocks, "float32" or "bfloat16".
    precision: of float32 products, see `core.devices.precision`.
    drop_path: stochastic depth rate of the last block.
    remat: whether the backward pass recomputes blocks instead of storing their activations.
    kernels: whether training steps run attention and MLPs by kernels, see `sparsity.step_kernels`.
    given: {field of `Architecture`: value} that the config sets; the others come from the weights
      or the variant.
  """

  variant: str
  num_classes: int
  image_size: int | tuple[int, int]
  dtype: str
  precision: str
  drop_path: float
  remat: bool
  kernels: bool
  given: Mapping[str, Any]

  @classmethod
  def of(cls, section):
    """The `Model` of `config.model`; raises InputError for an invalid image size."""
    given = {name: section[name] for name in OVERRIDES if section.get(name) is not None}
    given |= {field: section[key] for key, field in _ALWAYS.items()}
    given["image_size"] = sizes.plain(given["image_size"])
    given = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in given.items()}
    own = [field.name for field in dataclasses.fields(cls) if field.name != "given"]
    return cls(**{k: section[k] for k in own} | {"image_size": given["image_size"]}, given=given)


def architecture(model, described=None):
  """The `Architecture` that a `Model` describes, including the stages that it could prune at.

  Args:
    model: a `Model`.
    described: the description stored with the weights, an `Architecture` or {field: value}. Fields
      of `PRUNING` and `TRAITS` that the config leaves open are taken from it.

  Raises:
    InputError: an unknown variant without all dimensions, or keys that contradict each other.
  """
  given = dict(model.given)
  said = vars(described) if isinstance(described, vit.Architecture) else described or {}
  theirs = {k: v for k, v in said.items() if k in PRUNING + TRAITS}
  if "prune_before" in given:  # the stored stage weights belong to the stored stages
    theirs.pop("stage_weights", None)
  if not theirs.get("prune_before"):  # a dense network does not say where it could prune
    theirs.pop("prune_before", None)
    theirs.pop("stage_weights", None)
  base = vit.VARIANTS.get(model.variant)
  if "depth" in given and "prune_before" not in given:
    # Stages of a deeper network, which the user did not ask for, do not fit this one.
    stages = theirs.get("prune_before") or (base.prune_before if base is not None else ())
    within = stages_within(stages, given["depth"])
    if within != stages and given["depth"] > 0:
      theirs |= {"prune_before": within, "stage_weights": ()}
  given = theirs | given
  if base is not None:
    return dataclasses.replace(base, **given)
  missing = [name for name in ("width", "heads", "depth", "prune_before") if name not in given]
  if missing:
    raise InputError(
      f"model.variant {shown(model.variant)} is not known: choose from {', '.join(vit.VARIANTS)}, "
      f"or describe your own: {', '.join(f'model.{name}' for name in missing)} must be given, too"
      f"{hint(model.variant, vit.VARIANTS)}"
    )
  return vit.Architecture(**given)


def describe_in(config, arch, variant):
  """Sets the keys of `config.model` to the fields of an `Architecture`; returns the config."""
  config.model.variant = variant
  for key, field in _ALWAYS.items():
    config.model[key] = getattr(arch, field)
  for name in OVERRIDES:
    value = getattr(arch, name)
    config.model[name] = float(value) if name == "mlp_ratio" else value
  return config


def trained_architecture(config):
  """The `Architecture` to train: dense without a budget; a budget is checked against it."""
  arch = architecture(Model.of(config.model))
  if config.budget is None:
    return arch.dense
  for budget in (config.budget, *(config.budget_range or ())):
    check_budget(arch, budget)
  return arch


def preprocessing(data, described=None):
  """The `Preprocessing` that the keys of `config.data` ask for.

  Args:
    data: the section `data` of a config or a `Plan`.
    described: the `Preprocessing` of the weights, for keys that the config leaves open; None for
      the defaults.

  Raises:
    InputError: an invalid value.
  """
  return (described or Preprocessing()).overridden(data)
