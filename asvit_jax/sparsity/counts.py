"""Numbers of patches that every image keeps at each stage, which fixed execution runs with."""

import numpy as np


def mean_of(kept):
  """The rounded mean of each stage, a tuple, of (images, stages) patches kept, at least one row."""
  return tuple(np.asarray(kept, np.float64).mean(axis=0).round().astype(int).tolist())


def uniform(arch, ratio):
  """Those where a stage of weight 1 keeps the share `ratio` of the patches, a tuple."""
  return tuple(round(arch.patches * ratio**exponent) for exponent in arch.stage_exponents)


def counts_at(rows, budgets, budget):
  """Those of a budget between two, interpolated in straight lines and rounded.

  Args:
    rows: (k, stages) numbers, a row a budget, or one row for all of them.
    budgets: k shares of the dense GMACs, in any order.
    budget: share between the least and the greatest of them.

  Returns:
    A tuple of ints.
  """
  if len(rows) == 1:
    return tuple(rows[0])
  order = np.argsort(budgets)
  known, table = np.asarray(budgets)[order], np.asarray(rows)[order]
  return tuple(int(np.round(np.interp(budget, known, column))) for column in table.T)
