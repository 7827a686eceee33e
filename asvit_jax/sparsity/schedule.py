"""The pruning of a budget: the stage weights, thresholds and counts that belong to it.

A budget is a share of the dense GMACs. A network calibrated for several budgets has a row of
thresholds and a row of counts for each; those of a budget between two of them are interpolated. The
counts are the number of patches that every image keeps at each stage in fixed execution.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.scores import SCORES

SPACING = 0.1  # largest distance between the budgets that a range is calibrated at


def with_stage_weights(arch, budget):
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


@usual
def thresholds_at(table, budgets, budget):
  """Interpolates between the two nearest budgets; differentiable in the table.

  Scores are products, so thresholds are closer to exponential than to linear in the budget. Their
  logarithms are interpolated; a stage with a threshold that is not positive is interpolated
  linearly.

  Args:
    table: (k, stages) thresholds, one row per budget.
    budgets: k shares of the dense GMACs, in any order.
    budget: () share between the smallest and the largest of them.

  Returns:
    (stages,) thresholds.
  """
  order = np.argsort(budgets)
  known = jnp.asarray(np.asarray(budgets)[order], jnp.float32)

  def interpolated(column):
    column = column[order]
    positive = (column > 0).all()
    logs = jnp.log(jnp.where(positive, column, 1.0))  # 1: no gradient of a logarithm of nothing
    return jnp.where(
      positive, jnp.exp(jnp.interp(budget, known, logs)), jnp.interp(budget, known, column)
    )

  return jax.vmap(interpolated, in_axes=1)(table)


def counts_at(rows, budgets, budget):
  """The counts of a budget, interpolated linearly between the nearest budgets and rounded.

  Args:
    rows: (k, stages) counts, one row per budget, or a single row for all of them.
    budgets: k shares of the dense GMACs, in any order.
    budget: share between the smallest and the largest of them.

  Returns:
    A tuple of ints.
  """
  if len(rows) == 1:
    return tuple(rows[0])
  order = np.argsort(budgets)
  known, table = np.asarray(budgets)[order], np.asarray(rows)[order]
  return tuple(int(np.round(np.interp(budget, known, column))) for column in table.T)


def mean_counts(kept):
  """The rounded mean per stage, a tuple, of (images, stages) patches kept; images is not 0."""
  return tuple(np.asarray(kept, np.float64).mean(axis=0).round().astype(int).tolist())


def uniform_counts(arch, ratio):
  """The counts, a tuple, if a stage of exponent e keeps the share ratio^e of the patches.

  Args:
    arch: an `Architecture`, which gives the exponents.
    ratio: the keep ratio.
  """
  shares = (ratio**exponent for exponent in arch.stage_exponents)
  return tuple(max(arch.least_patches, round(arch.patches * share)) for share in shares)


def check_in_range(budgets, budget):
  """Raises InputError if a budget lies outside of the range of the given budgets."""
  low, high = min(budgets), max(budgets)
  if not low <= budget <= high:
    raise InputError(
      f"budget {budget:g}: the thresholds are for {low:g} to {high:g}; give a budget between them, "
      "or calibrate for more with --calibrate BUDGET,BUDGET,…"
    )


def budgets_of_range(low, high, default):
  """The budgets to calibrate for a range: `default`, then others at most `SPACING` apart."""
  count = 1 + int(np.ceil((high - low) / SPACING - 1e-9))
  others = np.linspace(low, high, max(count, 2)).round(4).tolist()
  return (default, *(b for b in others if b != default))
