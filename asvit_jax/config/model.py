"""The network that a config describes."""

import dataclasses

from asvit_jax import vit
from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.sparsity.complexity import check_budget
from asvit_jax.vit.architecture import stages_of

# Keys of config.model that are fields of `Architecture` by another name, and always set.
_ALWAYS = {"num_classes": "classes", "image_size": "image_size", "patch_size": "patch_size"}
# Those of the same name, None for what the variant has.
OVERRIDES = tuple(
  field.name for field in dataclasses.fields(vit.Architecture) if field.name not in _ALWAYS.values()
)
# Those that say how it prunes: they may be chosen anew for weights without thresholds.
PRUNING = (
  "prune_before",
  "prune_inside",
  "count_multiple",
  "attention",
  "score",
  "reduction",
  "score_exponents",
  "stage_weights",
)
# What the weights know better than the variant that they are given for.
TRAITS = ("norm_epsilon", "qkv_bias", "layer_scale", "dist_token", "dist_head")


def architecture(config, described=None):
  """The `Architecture` that the model's keys describe, with the stages that it could prune at.

  Args:
    config: see `config.base`.
    described: what the weights say, an `Architecture` or {field: value} of some of its fields: what
      the config leaves open of how it prunes, and of `TRAITS`, is theirs.

  Raises:
    InputError: an unknown variant of which not all dimensions are given, or keys that do not fit
      each other.
  """
  model = config.model
  given = {name: model[name] for name in OVERRIDES if model.get(name) is not None}
  given |= {field: model[key] for key, field in _ALWAYS.items()}
  given["image_size"] = sizes.plain(given["image_size"])
  given = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in given.items()}
  said = vars(described) if isinstance(described, vit.Architecture) else described or {}
  theirs = {k: v for k, v in said.items() if k in PRUNING + TRAITS}
  if "prune_before" in given:  # other stages than those that the weights are for
    theirs.pop("stage_weights", None)
  if not theirs.get("prune_before"):  # it says that it is dense, not where it could prune
    theirs.pop("prune_before", None)
    theirs.pop("stage_weights", None)
  base = vit.VARIANTS.get(model.variant)
  if "depth" in given and "prune_before" not in given:
    # The stages of a deeper network, which nobody typed here, are none of this one's.
    stages = theirs.get("prune_before") or (base.prune_before if base is not None else ())
    if max(stages, default=0) >= given["depth"] > 0:
      theirs |= {"prune_before": stages_of(given["depth"]), "stage_weights": ()}
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
  """Sets the keys of `config.model` to those of an `Architecture`; returns the config."""
  config.model.variant = variant
  for key, field in _ALWAYS.items():
    config.model[key] = getattr(arch, field)
  for name in OVERRIDES:
    value = getattr(arch, name)
    config.model[name] = float(value) if name == "mlp_ratio" else value
  return config


def trained_architecture(config):
  """The `Architecture` to train: pruned where there is a budget, which is checked, else dense."""
  arch = architecture(config)
  if config.budget is None:
    return arch.dense
  for budget in (config.budget, *(config.budget_range or ())):
    check_budget(arch, budget)
  return arch


def preprocessing(config, described=None):
  """The `Preprocessing` that the config asks for.

  Args:
    config: see `config.base`.
    described: that of the weights, for what the config leaves open; None for the defaults.

  Raises:
    InputError: a value that cannot work.
  """
  return (described or Preprocessing()).overridden(config.data)
