"""A fixed top-k: the paper's score and stages, the same number of tokens in every image."""

from asvit_jax.comparison.methods.fixed import FixedCount


class TopK(FixedCount):
  """See `methods`; those of highest score stay, the others are dropped, a geometric schedule.

  As EViT and DynamicViT keep tokens, by the score of Adaptive Sparse ViT (arXiv:2209.13802).
  """


top_k = TopK()
