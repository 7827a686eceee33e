"""Counts: the number of patches that every image keeps at each stage in fixed execution."""

import numpy as np


def mean_of(kept):
  """The rounded mean per stage, a tuple, of (images, stages) patches kept; images is not 0."""
  return tuple(np.asarray(kept, np.float64).mean(axis=0).round().astype(int).tolist())


def uniform(arch, ratio):
  """The counts, a tuple, if a stage of exponent 1 keeps the share `ratio` of the patches."""
  return tuple(round(arch.patches * ratio**exponent) for exponent in arch.stage_exponents)


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
