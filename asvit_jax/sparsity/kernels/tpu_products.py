"""What the kernels for a TPU share: matrix products, layer norms, activations."""

import jax
import jax.numpy as jnp
from jax import lax

from asvit_jax.vit.layers import ACTIVATIONS

# Lanes of a register. A head takes half of them.
LANES = 128


def dot(a, b, transposed=False):
  """(m, k) times (k, n), or (n, k) if `transposed` -> (m, n) float32."""
  precision = lax.Precision.DEFAULT
  # Kernels know no precision between one bfloat16 pass and float32.
  if a.dtype == jnp.float32 and jax.config.jax_default_matmul_precision not in (
    *(None, "default", "bfloat16", "fastest"),
  ):
    precision = lax.Precision.HIGHEST
  contracted = (((1,), (1 if transposed else 0,)), ((), ()))
  return lax.dot_general(a, b, contracted, precision=precision, preferred_element_type=jnp.float32)


def layer_norm(x, scale, bias, epsilon):
  """(m, d) tokens -> (m, d) float32; by the formula of `nnx.LayerNorm`."""
  x = x.astype(jnp.float32)
  mean = x.mean(axis=-1, keepdims=True)
  variance = jnp.maximum((x * x).mean(axis=-1, keepdims=True) - mean * mean, 0.0)
  return (x - mean) * (lax.rsqrt(variance + epsilon) * scale) + bias


def activate(name, x):
  """An activation of `vit.layers` on float32."""
  if name == "gelu":  # kernels have erf, but not erfc
    return 0.5 * x * (1.0 + lax.erf(x * 0.5**0.5))
  return ACTIVATIONS[name](x)
