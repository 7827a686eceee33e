"""What adaptivity is worth when merging: the criterion of `merge`, a fixed count an image."""

from asvit_jax.comparison.methods.fixed import FixedCount


class MergeFixed(FixedCount):
  """See `methods`: the score, the stages, the schedule and the reduction of `merge`."""

  def architecture(self, paper, merging):
    """See `methods`."""
    del paper
    return merging


merge_fixed = MergeFixed()
