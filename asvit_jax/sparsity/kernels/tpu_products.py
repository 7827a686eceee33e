"""What the kernels for a TPU share: matrix products, layer norms, activations."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from asvit_jax.vit.layers import ACTIVATIONS

# Lanes of a register. A head takes half of them.
LANES = 128


def dot(a, b, transposed=False, exact=False):
  """(m, k) times (k, n), or (n, k) if `transposed` -> (m, n) float32; float32's own if `exact`."""
  precision = lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT
  # Kernels know no precision between one bfloat16 pass and float32.
  if a.dtype == jnp.float32 and jax.config.jax_default_matmul_precision not in (
    *(None, "default", "bfloat16", "fastest"),
  ):
    precision = lax.Precision.HIGHEST
  contracted = (((1,), (1 if transposed else 0,)), ((), ()))
  return lax.dot_general(a, b, contracted, precision=precision, preferred_element_type=jnp.float32)


def summed(own, products, dtype):
  """Sums chosen lanes of every row.

  Args:
    own: (rows, 128) float32 zeros and ones.
    products: (w, 128) float32, of two numbers of `dtype` each.
    dtype: bfloat16 or float32.

  Returns:
    (rows, w) float32 sums of the lanes at the ones.
  """
  if dtype == jnp.float32:
    return dot(own, products, transposed=True, exact=True)
  ones = own.astype(dtype)
  # The product of two bfloat16 has 16 bits: two bfloat16.
  high = products.astype(dtype)
  low = (products - high.astype(jnp.float32)).astype(dtype)
  return dot(ones, high, transposed=True) + dot(ones, low, transposed=True)


def eye_of(n):
  """(n, n) bool, true on the diagonal."""
  row, column = (lax.broadcasted_iota(jnp.int32, (n, n), axis) for axis in (0, 1))
  return row == column


def column(row, eye=None):
  """(1, n) -> (n, 1); exact, as one number of each sum is not 0; `eye` is that of n, if known."""
  eye = eye_of(row.shape[1]) if eye is None else eye
  return jnp.where(eye, row, 0.0).sum(axis=1, keepdims=True)


def layer_norm(x, scale, bias, epsilon):
  """(m, d) tokens -> (m, d) float32; by the formula of `nnx.LayerNorm`."""
  x = x.astype(jnp.float32)
  mean = x.mean(axis=-1, keepdims=True)
  variance = jnp.maximum((x * x).mean(axis=-1, keepdims=True) - mean * mean, 0.0)
  return (x - mean) * (lax.rsqrt(variance + epsilon) * scale) + bias


def reciprocal(x):
  """1 / x of float32 that is neither 0, infinite nor close to that."""
  return pl.reciprocal(x, full_range=False)


def activate(name, x):
  """An activation of `vit.layers` on float32."""
  return _gelu(x) if name == "gelu" else ACTIVATIONS[name](x)


def with_slope(name, x):
  """An activation of `vit.layers` on float32, and its derivative."""
  if name != "gelu":
    return jax.jvp(ACTIVATIONS[name], (x,), (jnp.ones_like(x),))
  size = jnp.abs(x)
  tail, bell = _tail(x, size)
  slope = jnp.where(x > 0, 1.0 - tail, tail) + (2 * jnp.pi) ** -0.5 * (x * bell)
  return jnp.maximum(x, 0.0) - size * tail, slope


def _gelu(x):
  """The exact GELU, with an absolute error of at most 4e-7."""
  size = jnp.abs(x)
  tail, _ = _tail(x, size)  # before what follows: so it schedules 4 % less
  return jnp.maximum(x, 0.0) - size * tail


def _tail(x, size):
  """1 - Φ(|x|), from x and |x|, Φ being the normal distribution, and exp(-x² / 2).

  By formula 7.1.26 of Abramowitz and Stegun. It is as precise in float32 as by `lax.erf`, with
  which a fused MLP takes a quarter more of a TPU's bundles (for v5e, by its compiler).
  """
  t = reciprocal(1.0 + (0.3275911 * 0.5**0.5) * size)
  tail = 1.061405429
  for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
    tail = tail * t + coefficient
  tail = (0.5 * tail) * t
  bell = jnp.exp(-0.5 * x * x)
  return tail * bell, bell
