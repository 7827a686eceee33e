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
    b, n, _ = x.shape
    takes = (keep > 0) & (jnp.arange(n) > 0)
    similarity = jnp.where(takes[:, None, :], cosine_similarity(keys), -jnp.inf)
    destination = jax.lax.stop_gradient(jnp.argmax(similarity, axis=-1))  # (b, n)
    goes = present * (1.0 - keep) * takes.any(axis=1, keepdims=True)
    moved = (goes * sizes)[..., None] * x.astype(jnp.float32)
    image = jnp.arange(b)[:, None]
    total = sizes.at[image, destination].add(goes * sizes)
    mass = (sizes[..., None] * x).at[image, destination].add(moved)
    return (mass / total[..., None]).astype(x.dtype), total


merge = Merge()
