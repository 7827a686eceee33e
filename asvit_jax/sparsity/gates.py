"""Gates: masks from scores and a learned threshold (arXiv:2209.13802, section 3)."""

import jax
import jax.numpy as jnp

# Temperature of the sigmoid whose gradient stands in for that of the hard decision, as published.
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
