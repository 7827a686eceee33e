"""The schedule of pruning: stage weights that depend on the budget."""

import dataclasses

from asvit_jax.sparsity.scores import SCORES


def at(arch, budget):
  """An `Architecture` with the stage weights for a budget.

  Its own stage weights take precedence. Without them, the score may provide defaults, see `scores`;
  otherwise all stages have equal weights, as published.

  Args:
    arch: the `Architecture`.
    budget: share of the dense GMACs.
  """
  weights = getattr(SCORES[arch.score], "stage_weights", None)
  if arch.stage_weights or not arch.prune_before or weights is None:
    return arch
  return dataclasses.replace(arch, stage_weights=weights(budget, arch.stages))
