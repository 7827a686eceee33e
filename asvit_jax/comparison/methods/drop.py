"""Adaptive Sparse ViT as published (arXiv:2209.13802): tokens below a threshold are dropped."""

from asvit_jax.comparison.methods.thresholds import Thresholds


class Drop(Thresholds):
  """See `methods`."""

  def architecture(self, paper, merging):
    """See `methods`."""
    del merging
    return paper


drop = Drop()
