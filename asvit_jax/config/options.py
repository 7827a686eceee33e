"""What recipes take as their argument: `0.65`, `0.65,merge`, `dense`, `dense,merge`."""

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint

# Where, how hard and by what to merge a network of 12 blocks: of what was tried on the real DeiT-T,
# that with the least divergence from the dense network at 50 % (docs/merging.md). There is a stage
# before every block but the first; they cut as e^(t/2), t from -1 to 1.
_MERGING = {
  "reduction": "merge",
  "score": "attention_novelty",
  "score_exponents": (0.5, 1.0),
  "prune_before": tuple(range(1, 12)),
  "stage_weights": (0.607, 0.67, 0.741, 0.819, 0.905, 1.0, 1.11, 1.22, 1.35, 1.49, 1.65),
}


def apply(config, argument):
  """Sets the budget and the reduction that a recipe's argument asks for.

  Args:
    config: of `base`.
    argument: a share of the dense GMACs, or "dense" for a network without pruning; then ",merge"
      where tokens are to be merged instead of dropped.

  Raises:
    InputError: anything else.
  """
  budget, *options = argument.split(",")
  if options == ["merge"]:
    config.model.update(_MERGING)
  elif options:
    meant = hint(options[0], ["merge"])
    raise InputError(f"argument {argument!r}: expected BUDGET, or BUDGET,merge{meant}")
  if budget == "dense":
    return
  try:
    config.budget = float(budget)
  except ValueError as error:
    raise InputError(
      f"argument {argument!r}: expected a share of the dense GMACs such as 0.65, or dense"
      f"{hint(budget, ['dense'])}"
    ) from error


def merging():
  """The keys of `config.model` that the recipes merge by, {name: value}."""
  return dict(_MERGING)
