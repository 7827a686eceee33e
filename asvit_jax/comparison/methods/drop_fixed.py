"""What adaptivity is worth when dropping: the criterion of `drop`, a fixed count an image."""

from asvit_jax.comparison.methods.fixed import FixedCount


class DropFixed(FixedCount):
  """See `methods`: the score, the stages and the schedule of `drop`; also called `top_k`.

  The count of a stage is the mean that the thresholds of `drop` are calibrated to. So those of
  highest score stay, in a geometric schedule, as EViT and DynamicViT keep tokens, by the score of
  Adaptive Sparse ViT (arXiv:2209.13802).
  """


drop_fixed = DropFixed()
