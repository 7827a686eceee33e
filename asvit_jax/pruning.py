"""Which tokens stay: their scores and the learned thresholds (arXiv:2209.13802, section 3)."""

import jax
import jax.numpy as jnp

# Temperature of the sigmoid whose gradient stands in for that of the hard decision, as published.
TEMPERATURE = 1e-4


def token_scores(class_attention, context):
  """Class attention weighted by each head's importance to the token, Eq. (4)-(6).

  Args:
    class_attention: (..., h) attention of the class token to a patch token, by head.
    context: (..., h, c) output of each head at that token.

  Returns:
    (...) float32 scores, each at most the largest head's class attention.
  """
  norm = jnp.linalg.norm(context.astype(jnp.float32), axis=-1)
  importance = norm / (norm.sum(axis=-1, keepdims=True) + 1e-8)
  return (importance * class_attention.astype(jnp.float32)).sum(axis=-1)


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


def initial_thresholds(stages):
  """(stages,) float32 to start training from: 0.001, 0.002, 0.003 and so on."""
  return 1e-3 * jnp.arange(1, stages + 1, dtype=jnp.float32)
