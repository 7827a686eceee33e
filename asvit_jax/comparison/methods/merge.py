"""Ours: tokens below a threshold are merged into the kept one most like them."""

from asvit_jax.comparison.methods.thresholds import Thresholds


class Merge(Thresholds):
  """Thresholds with the recipe's score, stages, ratios and merging; see `methods`."""

  def architecture(self, paper, merging):
    """The `Architecture` that the method runs, of the two given; see `methods`."""
    del paper
    return merging


merge = Merge()
