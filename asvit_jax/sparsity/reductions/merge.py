"""Merging: every removed token is averaged into the kept token most similar to it.

Similarity is that of the keys, as in ToMe (arXiv:2210.09461), or that of the tokens themselves.
Scores and thresholds decide which tokens of an image are removed, and how many.
"""

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.similarity import cosine_similarity


class Merge:
  """Merges tokens by the similarity of their keys; a reduction, see `reductions`.

  Every kept patch token becomes the mean of itself and the tokens merged into it, weighted by size.
  No token is merged into the class token. If no patch is kept, the removed tokens are dropped.
  """

  changes_tokens = True
  uses_keys = True

  def __call__(self, x, sizes, present, keep, keys):
    """The merged tokens and sizes. Gradients reach how much is merged, not the destinations."""
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
    """(b, n) int, the kept token with the most similar key; see `reductions`."""
    return _most_alike(cosine_similarity(jax.lax.stop_gradient(keys)), keep)


def _most_alike(similarity, keep):
  """(b, n) index of the kept patch most similar to each token, the first of equals; n for none.

  Uses a maximum and a minimum in place of an argmax, over the first axis of a symmetric array: CPUs
  have vector instructions for these.

  Args:
    similarity: (b, n, n), symmetric.
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
  """As `Merge`, by the similarity of the tokens (the residual stream), not of their keys."""

  uses_keys = False
  uses_similarity = True

  def destinations(self, keep, similarity):
    """(b, n) int, the most similar kept token; see `reductions`."""
    return _most_alike(jax.lax.stop_gradient(similarity), keep)


merge_tokens = MergeTokens()
