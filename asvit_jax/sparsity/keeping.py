"""Selects the tokens that a stage keeps: by a threshold on the scores, or a fixed number."""

import jax.numpy as jnp


def over(scores, present, threshold, multiple=1):
  """The mask of the tokens whose score exceeds a threshold.

  Args:
    scores: (b, n), infinite for tokens that are always kept.
    present: (b, n) mask of the tokens left.
    threshold: () threshold.
    multiple: the number of kept tokens of an image is rounded up to a multiple of this, as far as
      there are tokens, with the tokens of the next highest scores.

  Returns:
    (b, n) bool mask of the kept tokens.
  """
  present = present > 0
  keep = (scores > threshold) & present
  if multiple == 1:
    return keep
  wanted = -(-keep.sum(axis=1) // multiple) * multiple
  return best(scores, present, wanted)


def best(scores, present, count):
  """(b, n) mask of the `count`, () or (b,), highest scores among the tokens of `present`."""
  present = present > 0
  return present & (_ranks(scores, present) < jnp.reshape(count, (-1, 1)))


def _ranks(scores, present):
  """(b, n) rank of each token among the tokens left, by score; the first of equals is higher.

  Compares all pairs: for these numbers of tokens that is faster than a sort, on CPU and on TPU.
  """
  scores = jnp.where(present, scores, -jnp.inf)
  one, other = scores[:, :, None], scores[:, None, :]
  before = jnp.arange(scores.shape[1])
  higher = (one > other) | ((one == other) & (before[:, None] < before[None, :]))
  return higher.sum(axis=1)  # over the first axis: a CPU has vector instructions for that
