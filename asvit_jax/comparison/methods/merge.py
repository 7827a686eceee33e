"""Ours: tokens below a threshold are merged into the kept one most like them."""

from asvit_jax.comparison.methods.thresholds import Thresholds


class Merge(Thresholds):
  """See `methods`; score, stages and ratios are those of the recipe."""

  def architecture(self, paper, merging):
    """See `methods`."""
    del paper
    return merging


merge = Merge()
