"""The paper's score (arXiv:2209.13802, Eq. 4-6)."""

import jax.numpy as jnp


class ClassAttention:
  """Class attention weighted by each head's importance to the token; a score, see `scores`."""

  uses_keys = False

  def gather(self, class_attention, context):
    """(..., h) attention and (..., h, c) context -> (...) float32, at most the largest head's."""
    norm = jnp.linalg.norm(context.astype(jnp.float32), axis=-1)
    importance = norm / (norm.sum(axis=-1, keepdims=True) + 1e-8)
    return (importance * class_attention.astype(jnp.float32)).sum(axis=-1)

  def __call__(self, gathered, keys, present, exponents):
    """Returns the gathered values: they are the scores."""
    del keys, present, exponents
    return gathered


class_attention = ClassAttention()
