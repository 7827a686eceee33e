"""Merging: a token that goes is averaged into the kept one most like it.

Tokens are alike by their keys, as in ToMe (arXiv:2210.09461); which ones go, and how many of an
image, is said by scores and thresholds.
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
    takes = (keep > 0) & (jnp.arange(n) > 0)
    destination = _most_alike(jax.lax.stop_gradient(keys), takes)
    goes = present * (1.0 - keep) * takes.any(axis=1, keepdims=True)
    goes = (goes * sizes)[..., None]
    moved = jnp.where(destination[..., None] == jnp.arange(n), goes, 0.0)  # (b, from, to)
    total = sizes + moved.sum(axis=1)
    # A product is less work than it seems, and a scatter more.
    taken = jnp.einsum("bft,bfd->btd", moved, x.astype(jnp.float32), precision="highest")
    mass = sizes[..., None] * x + taken
    return (mass / total[..., None]).astype(x.dtype), total


def _most_alike(keys, takes):
  """(b, n) for each token the first of `takes` whose key is most like its own; n where none takes.

  A maximum and a minimum instead of an argmax, over the first axis of what is symmetric: a CPU has
  vector instructions for these.
  """
  n = keys.shape[1]
  similarity = jnp.where(takes[:, :, None], cosine_similarity(keys), -jnp.inf)  # (b, other, token)
  nearest = similarity.max(axis=1, keepdims=True)
  others = jnp.arange(n)[None, :, None]
  return jnp.where((similarity >= nearest) & takes[:, :, None], others, n).min(axis=1)


merge = Merge()


class MergeTokens(Merge):
  """As `Merge`, but tokens are alike by themselves, the residual stream, and not by their keys."""

  uses_keys = False
  uses_tokens = True


merge_tokens = MergeTokens()
