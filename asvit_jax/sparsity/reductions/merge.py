"""Merging: a token that goes is averaged into the kept one most like it.

Tokens are alike by their keys, as in ToMe (arXiv:2210.09461), or by themselves; which ones go, and
how many of an image, is said by scores and thresholds.
"""

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.similarity import cosine_similarity


class Merge:
  """See `reductions`.

  Every kept patch token becomes the mean of itself and of those that go to it, weighted by size.
  The class token takes none over. Where no patch is kept, nothing takes them: they are dropped.
  """

  changes_tokens = True
  uses_keys = True

  def __call__(self, x, sizes, present, keep, keys):
    """See `reductions`; where tokens go has no gradient, how much of them goes does."""
    n = x.shape[1]
    destination = self.destinations(keep, keys)
    goes = jnp.where(destination < n, present * (1.0 - keep), 0.0)
    goes = (goes * sizes)[..., None]
    moved = jnp.where(destination[..., None] == jnp.arange(n), goes, 0.0)  # (b, from, to)
    total = sizes + moved.sum(axis=1)
    # A product is less work than it seems, and a scatter more.
    taken = jnp.einsum("bft,bfd->btd", moved, x.astype(jnp.float32), precision="highest")
    mass = sizes[..., None] * x + taken
    return (mass / total[..., None]).astype(x.dtype), total

  def destinations(self, keep, keys):
    """See `reductions`."""
    return _most_alike(cosine_similarity(jax.lax.stop_gradient(keys)), keep)


def _most_alike(similarity, keep):
  """(b, n) for each token the first kept patch that is most like it; n where none is kept.

  A maximum and a minimum instead of an argmax, over the first axis of what is symmetric: a CPU has
  vector instructions for these.

  Args:
    similarity: (b, n, n).
    keep: (b, n) mask, the class token first.
  """
  n = keep.shape[1]
  takes = (keep > 0) & (jnp.arange(n) > 0)
  similarity = jnp.where(takes[:, :, None], similarity, -jnp.inf)  # (b, other, token)
  nearest = similarity.max(axis=1, keepdims=True)
  others = jnp.arange(n)[None, :, None]
  return jnp.where((similarity >= nearest) & takes[:, :, None], others, n).min(axis=1)


merge = Merge()


class MergeTokens(Merge):
  """As `Merge`, but tokens are alike by themselves, the residual stream, and not by their keys."""

  uses_keys = False
  uses_similarity = True

  def destinations(self, keep, similarity):
    """See `reductions`."""
    return _most_alike(jax.lax.stop_gradient(similarity), keep)


merge_tokens = MergeTokens()
