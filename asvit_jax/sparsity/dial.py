"""One network, every budget: thresholds as a function of the share of the dense GMACs.

A network calibrated for several budgets has a row of thresholds for each. The thresholds of a
budget between two of them are interpolated.
"""

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.promotion import usual

SPACING = 0.1  # of the budgets that a range is calibrated at, at most


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


def check(budgets, budget):
  """Raises InputError if a budget lies outside of the range of the given budgets."""
  low, high = min(budgets), max(budgets)
  if not low <= budget <= high:
    raise InputError(
      f"budget {budget:g}: the thresholds are for {low:g} to {high:g}; ask for one of these, or "
      "calibrate for more with --calibrate BUDGET,BUDGET,…"
    )


def spread(low, high, default):
  """The budgets to calibrate for a range: `default`, then others at most `SPACING` apart."""
  count = 1 + int(np.ceil((high - low) / SPACING - 1e-9))
  others = np.linspace(low, high, max(count, 2)).round(4).tolist()
  return (default, *(b for b in others if b != default))
