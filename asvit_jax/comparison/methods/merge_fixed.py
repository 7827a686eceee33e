"""What adaptivity is worth when merging: the criterion of `merge`, a fixed count an image."""

from asvit_jax.comparison.methods.fixed import FixedCount


class MergeFixed(FixedCount):
  """Fixed counts with `merge`'s score, stages, schedule and reduction; see `methods`."""

  def architecture(self, paper, merging):
    """The `Architecture` that the method runs, of the two given; see `methods`."""
    del paper
    return merging


merge_fixed = MergeFixed()
