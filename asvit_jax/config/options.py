"""The argument of a recipe: `0.65`, `0.65,merge`, `dense` or `dense,merge`."""

from asvit_jax.config.model import Model, architecture
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint, percent_hint
from asvit_jax.core.printable import shown


def apply(config, argument):
  """Sets the budget and the reduction of a config from a recipe's argument.

  Args:
    config: a config of `base` with its `model.variant`, whose depth determines the merging stages.
    argument: a share of the dense GMACs, or "dense" for a network without pruning; followed by
      ",merge" to merge tokens instead of dropping them.

  Raises:
    InputError: another argument, or ",merge" with an unknown variant.
  """
  budget, *options = argument.split(",")
  if options == ["merge"]:
    config.model.update(merging(architecture(Model.of(config.model)).depth))
  elif options:
    meant = hint(options[0], ["merge"])
    raise InputError(f"argument {shown(argument)}: expected BUDGET, or BUDGET,merge{meant}")
  if budget == "dense":
    return
  try:
    config.budget = float(budget)
  except ValueError as error:
    raise InputError(
      f"argument {shown(argument)}: expected a share of the dense GMACs such as 0.65, or dense"
      f"{hint(budget, ['dense']) or percent_hint(budget)}"
    ) from error


def merging(depth):
  """The merging options of the recipes: {key of `config.model`: value}.

  Of the stages and scores that were tried on training images with DeiT-T, these diverge least from
  the dense network (docs/merging.md). How much each stage merges follows from the budget, see
  `sparsity.schedule`.

  Args:
    depth: number of blocks.
  """
  stages = {round(depth * share / 12) for share in (2, 4, 6, 8, 10)}
  return {
    "reduction": "merge_tokens",
    "score": "merge_cost",
    "score_exponents": (0.5, 1.0, 0.5, 0.25),
    "prune_before": tuple(sorted(block for block in stages if 0 < block < depth)),
    "prune_inside": True,
    "stage_weights": (),
  }
