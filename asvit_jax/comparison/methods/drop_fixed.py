"""What adaptivity is worth when dropping: the criterion of `drop`, a fixed count an image."""

from asvit_jax.comparison.methods.fixed import FixedCount


class DropFixed(FixedCount):
  """See `methods`: the score, the stages and the schedule of `drop`.

  The count of a stage is the mean that the thresholds of `drop` are calibrated to. `drop` follows
  the paper, so it is also what `top_k` does.
  """


drop_fixed = DropFixed()
