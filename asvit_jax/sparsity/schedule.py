"""How hard each stage cuts, where that follows the budget."""

import dataclasses

from asvit_jax.sparsity.scores import SCORES


def at(arch, budget):
  """An `Architecture` with the stage weights to meet a budget by.

  They are its own where it has some. Where it has none, a score may know what fits it, see
  `scores`; else all stages weigh the same, as published.

  Args:
    arch: it.
    budget: share of the dense GMACs.
  """
  weights = getattr(SCORES[arch.score], "stage_weights", None)
  if arch.stage_weights or not arch.prune_before or weights is None:
    return arch
  return dataclasses.replace(arch, stage_weights=weights(budget, arch.stages))
