"""Where every patch went: the token that each patch is part of, followed through the stages.

Sources are (b, n) int32, for each of the n patches the position of the kept token that it is part
of, and -1 if it was dropped. Positions are those of `Outputs.positions`: patch i is the token
`Architecture.prefix_tokens` + i. `unmerge` gives the patches' grid back.
"""

import jax.numpy as jnp

from asvit_jax.core.errors import InputError
from asvit_jax.core.promotion import usual


def first_sources(b, prefix, n):
  """(b, n) sources before the first stage: each of n patches is its own token.

  Args:
    b: number of images.
    prefix: number of tokens before the patches.
    n: number of patches.
  """
  return jnp.broadcast_to(jnp.arange(prefix, prefix + n, dtype=jnp.int32), (b, n))


def follow(sources, pruning, stage, keep, similarity=None, position=None):
  """The sources after a stage.

  Uses comparisons in place of a scatter, as fixed execution does.

  Args:
    sources: (b, n) sources before the stage, or None if they are unknown or not asked for.
    pruning: the `Pruning`.
    stage: the `Stage`, (b, m, …).
    keep: (b, m) mask of the tokens that the stage keeps.
    similarity: see `Pruning.similarity`, if it was already computed.
    position: (b, m) the position of each token; by default all tokens are in their places.

  Returns:
    (b, n) sources, or None if they are unknown: the reduction does not say where tokens go.
  """
  if sources is None or not pruning.traces:
    return None
  if position is None:
    position = jnp.broadcast_to(jnp.arange(keep.shape[1]), keep.shape)
  destinations = pruning.destinations(stage, keep, similarity)
  return follow_to(destinations, sources, stage.present, position)


def follow_to(destinations, sources, present, position):
  """The sources after a stage, from the tokens that each one is part of.

  Args:
    destinations: (b, m), see `Pruning.destinations`.
    sources: (b, n) sources before the stage, or None if they are not asked for.
    present: (b, m) mask of the tokens before the stage.
    position: (b, m) the position of each token.

  Returns:
    (b, n) sources, or None.
  """
  if sources is None:
    return None
  m = position.shape[1]
  into = jnp.take_along_axis(position, jnp.minimum(destinations, m - 1), axis=1, mode="clip")
  into = jnp.where(destinations < m, into, -1).astype(jnp.int32)
  # Absent rows may have the position of another.
  found = (sources[..., None] == position[:, None, :]) & (present > 0)[:, None, :]
  # One row at most; the sum is 0 for a patch that is dropped now, or was before.
  return (jnp.where(found, into[:, None, :] + 1, 0).sum(axis=-1) - 1).astype(jnp.int32)


@usual
def unmerge(tokens, positions, sources, fill=0.0):
  """The dense grid of patches: each patch gets the token that it is part of.

  Rows may be in any order, so it takes the tokens of every execution and of artifacts. Without
  pruning it returns the patch tokens as they are.

  Args:
    tokens: (b, m, d) tokens, `Outputs.tokens`.
    positions: (b, m) int, `Outputs.positions`; rows with -1 are not read.
    sources: (b, n) int, `Outputs.sources`.
    fill: value of the patches that were dropped.

  Returns:
    (b, n, d) tokens of the patches, row by row.

  Raises:
    InputError: one of the arrays is missing, or they do not fit each other.
  """
  if tokens is None or positions is None:
    raise InputError("unmerge: there are no tokens: call the network with tokens=True")
  if sources is None:
    raise InputError(
      "unmerge: sources are unknown: the network's reduction has no `destinations`, so it does not "
      "say into which token each removed one is merged (asvit_jax/sparsity/reductions.py)"
    )
  tokens, positions, sources = map(jnp.asarray, (tokens, positions, sources))
  shapes = [a.shape for a in (tokens, positions, sources)]
  ranks = [a.ndim for a in (tokens, positions, sources)] == [3, 2, 2]
  if not ranks or shapes[1] != shapes[0][:2] or shapes[2][0] != shapes[0][0]:
    raise InputError(
      f"unmerge: tokens {shapes[0]}, positions {shapes[1]} and sources {shapes[2]}: expected "
      "(b, m, d), (b, m) and (b, n) of the same images"
    )
  if not shapes[0][1]:  # no row at all
    return jnp.full((*shapes[2], shapes[0][2]), fill, tokens.dtype)
  same = (sources[..., None] == positions[:, None, :]) & (sources >= 0)[..., None]  # (b, n, m)
  of_patches = jnp.take_along_axis(tokens, same.argmax(axis=-1)[..., None], axis=1)
  return jnp.where(same.any(axis=-1)[..., None], of_patches, jnp.asarray(fill, tokens.dtype))
