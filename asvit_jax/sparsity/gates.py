"""Decisions which tokens a stage keeps: gates for training, masks for inference.

The gates are those of arXiv:2209.13802, section 3.
"""

import jax
import jax.numpy as jnp

from asvit_jax.core.finite import finite

# Temperature of the sigmoid whose gradient replaces that of the hard decision, as published.
TEMPERATURE = 1e-4


def hard_gate(scores, threshold):
  """1.0 where a score exceeds the threshold, else 0.0; no gradient."""
  return (scores > threshold).astype(jnp.float32)


def soft_gate(scores, threshold, temperature=TEMPERATURE):
  """The differentiable stand-in for `hard_gate`: a sigmoid of the given temperature."""
  return jax.nn.sigmoid((scores - threshold) / temperature)


def straight_through_gate(scores, threshold, temperature=TEMPERATURE):
  """`hard_gate` forward, the gradient of `soft_gate` backward (straight-through estimator)."""
  soft = soft_gate(scores, threshold, temperature)
  return hard_gate(scores, threshold) + (soft - jax.lax.stop_gradient(soft))


def keep_above(scores, present, threshold, multiple=1, least=0):
  """The mask of the tokens whose score exceeds a threshold.

  Args:
    scores: (b, n), infinite for tokens that are always kept.
    present: (b, n) mask of the tokens left.
    threshold: () threshold.
    multiple: the number of kept tokens of an image is rounded up to a multiple of this, as far as
      there are tokens, with the tokens of the next highest scores.
    least: 1 to keep the best of the other tokens of an image if none exceeds the threshold, else 0.

  Returns:
    (b, n) bool mask of the kept tokens.
  """
  present = present > 0
  keep = (scores > threshold) & present
  if least:
    keep |= best(scores, present)
  if multiple == 1:
    return keep
  wanted = -(-keep.sum(axis=1) // multiple) * multiple
  return keep_best(scores, present, wanted)


def best(scores, present):
  """(b, n) mask of the highest finite score among the tokens of `present`, the first of equals."""
  n = scores.shape[1]
  scores = jnp.where((present > 0) & finite(scores), scores, -jnp.inf)
  highest = (scores >= scores.max(axis=1, keepdims=True)) & finite(scores)
  index = jnp.arange(n)
  return index == jnp.where(highest, index, n).min(axis=1, keepdims=True)


def keep_best(scores, present, count):
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
