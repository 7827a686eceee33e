"""What recipes take as their argument: `0.65`, `0.65,merge`, `dense`, `dense,merge`."""

import math

import numpy as np

from asvit_jax.config.model import architecture
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown


def apply(config, argument):
  """Sets the budget and the reduction that a recipe's argument asks for.

  Args:
    config: of `base`, with its `model.variant`, whose depth says how many stages merge.
    argument: a share of the dense GMACs, or "dense" for a network without pruning; then ",merge"
      where tokens are to be merged instead of dropped.

  Raises:
    InputError: anything else; where tokens are to be merged, an unknown variant.
  """
  budget, *options = argument.split(",")
  if options == ["merge"]:
    config.model.update(merging(architecture(config).depth))
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
      f"{hint(budget, ['dense'])}"
    ) from error


def merging(depth):
  """The keys of `config.model` that the recipes merge by, {name: value}.

  Where, how hard and by what: of what was tried on the real DeiT-T, that with the least divergence
  from the dense network at 50 % (docs/merging.md). There is a stage before every block but the
  first; they cut as e^(t/2), t from -1 to 1.

  Args:
    depth: number of blocks.
  """
  weights = (math.exp(t / 2) for t in np.linspace(-1, 1, depth - 1))
  return {
    "reduction": "merge",
    "score": "attention_novelty",
    "score_exponents": (0.5, 1.0),
    "prune_before": tuple(range(1, depth)),
    "stage_weights": tuple(float(f"{weight:.3g}") for weight in weights),
  }
