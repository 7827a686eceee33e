"""Adaptive Sparse ViT as published (arXiv:2209.13802): tokens below a threshold are dropped."""

from asvit_jax.comparison.methods.thresholds import Thresholds


class Drop(Thresholds):
  """Thresholds with the paper's score, stages and dropping; see `methods`."""

  def architecture(self, paper, merging):
    """The `Architecture` that the method runs, of the two given; see `methods`."""
    del merging
    return paper


drop = Drop()
