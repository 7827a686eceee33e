"""Which tokens of an image go on from a stage, by their scores: over a threshold, or the best."""

import jax.numpy as jnp


def over(scores, present, threshold, multiple=1):
  """Those whose score exceeds a threshold.

  Args:
    scores: (b, n), infinite for the tokens that always go on.
    present: (b, n) mask of those that are there.
    threshold: ().
    multiple: of which the number of an image is: it is rounded up, as far as there are tokens, and
      those with the next highest scores make it up.

  Returns:
    (b, n) bool.
  """
  present = present > 0
  keep = (scores > threshold) & present
  if multiple == 1:
    return keep
  wanted = -(-keep.sum(axis=1) // multiple) * multiple
  return best(scores, present, wanted)


def best(scores, present, count):
  """The `count`, () or (b,), highest scores of the tokens of the (b, n) mask `present`."""
  present = present > 0
  return present & (_ranks(scores, present) < jnp.reshape(count, (-1, 1)))


def _ranks(scores, present):
  """(b, n) how many tokens that are there have a higher score, or the same and come before.

  All pairs: for these numbers of tokens less work than to sort, on a CPU and on a TPU.
  """
  scores = jnp.where(present, scores, -jnp.inf)
  one, other = scores[:, :, None], scores[:, None, :]
  before = jnp.arange(scores.shape[1])
  higher = (one > other) | ((one == other) & (before[:, None] < before[None, :]))
  return higher.sum(axis=1)  # over the first axis: a CPU has vector instructions for that
