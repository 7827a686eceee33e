"""The paper's score (arXiv:2209.13802, Eq. 4-6)."""

import jax.numpy as jnp


def class_attention(*, class_attention, context, **_):
  """Class attention weighted by each head's importance to the token.

  Args:
    class_attention: (..., h) attention of the class token to a token, by head.
    context: (..., h, c) output of each head at that token.

  Returns:
    (...) float32 scores, each at most the largest head's class attention.
  """
  norm = jnp.linalg.norm(context.astype(jnp.float32), axis=-1)
  importance = norm / (norm.sum(axis=-1, keepdims=True) + 1e-8)
  return (importance * class_attention.astype(jnp.float32)).sum(axis=-1)
