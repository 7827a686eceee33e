"""Reductions: how a stage transfers information from the removed tokens to the kept ones.

A reduction is an object with

  changes_tokens: bool, whether the kept tokens change.
  uses_keys: bool, whether it compares the keys of tokens.
  __call__(x, sizes, present, keep, keys): returns the (b, n, d) tokens and their (b, n) sizes after
    the stage, from those before it. The size of a token is the number of patches that it stands
    for, and its weight in attention. `present` and `keep` are (b, n) masks of the tokens before and
    after the stage; the class token, which is the first, is in both (a row of ones, if the network
    has no token before the patches). `keys` are (b, n, c), the mean
    over the heads (None unless `uses_keys`). It is not called if `changes_tokens` is false.
    Gradients reach `keep`.

The execution removes the tokens afterwards.

A reduction may also have

  uses_similarity: bool, whether it compares the tokens themselves: it then receives their (b, n, n)
    float32 cosine similarities in place of `keys`; see `scores`.
  destinations(keep, keys): (b, n) int, the kept token into which each removed token is merged, n
    for none; for reductions that only average tokens, weighted by size. Packed and fixed execution
    then merge and remove tokens in one product.
"""

import jax
import jax.numpy as jnp

from asvit_jax.core.parts import Table
from asvit_jax.sparsity.scores import cosine_similarity


class Drop:
  """Leaves the kept tokens unchanged; a reduction, see `reductions`."""

  changes_tokens = False
  uses_keys = False

  def __call__(self, x, sizes, present, keep, keys):
    """Returns tokens and sizes unchanged."""
    del present, keep, keys
    return x, sizes


drop = Drop()


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

REDUCTIONS = Table(
  "reduction", "model.reduction", {"drop": drop, "merge": merge, "merge_tokens": merge_tokens}
)
