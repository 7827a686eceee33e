"""The MLP of training steps on a TPU, with its norm and its gradients.

Of the forward pass only the input stays. The backward kernel computes the hidden units again, a
tile of rows at a time, and sums the gradients of the weights, in float32, in the vector memory.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.kernels import tpu_rows
from asvit_jax.sparsity.kernels.tpu_products import dot, with_slope
from asvit_jax.sparsity.kernels.tpu_rows import TILE, Linear, Norm

_CHUNK = 768  # hidden units at once
_MiB = 2**20


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def norm_mlp(x, norm, up, down, epsilon, activation, interpret=False):
  """The layer norm and the MLP of rows, down(activation(up(norm(x)))), with all gradients.

  Args:
    x: (length, d) rows, in the type to compute in.
    norm: a `tpu_rows.Norm`, float32.
    up: a `tpu_rows.Linear`, float32.
    down: a `tpu_rows.Linear`, float32.
    epsilon: of the norm.
    activation: name in `vit.layers.ACTIVATIONS`.
    interpret: whether to interpret the kernels.

  Returns:
    (length, d) rows.
  """
  up, down = (Linear(linear.kernel.astype(x.dtype), linear.bias) for linear in (up, down))
  more = dict(epsilon=epsilon, activation=activation, interpret=interpret)
  return tpu_rows.norm_mlp(x, norm, up, down, **more)


def _forward(x, norm, up, down, epsilon, activation, interpret):
  y = norm_mlp(x, norm, up, down, epsilon, activation, interpret)
  return y, (x, norm, up, down)


def _backward(epsilon, activation, interpret, saved, gradient):
  return _gradients(*saved, gradient, epsilon, activation, interpret, _cores())


norm_mlp.defvjp(_forward, _backward)


def _cores():
  """Cores that share a kernel on the device that is here, each for its part of the rows.

  Every part sums gradients of its own, which costs time where there is one core.
  """
  return getattr(jax.devices()[0], "num_cores", 1)


# Traced once for all blocks.
@functools.partial(jax.jit, static_argnums=(5, 6, 7, 8))
def _gradients(x, norm, up, down, gradient, epsilon, activation, interpret, cores):
  length, d = x.shape
  tile = min(TILE, length)
  tiles = pl.cdiv(length, tile)
  parts = min(cores, tiles)
  of_part = pl.cdiv(tiles, parts)

  def rows(part, i):
    return jnp.minimum(part * of_part + i, tiles - 1), 0

  # Vectors are (1, …) arrays; the gradient of `down` is transposed.
  given = (*(a[None] for a in norm), up.kernel, up.bias[None], down.kernel)
  given = [a.astype(x.dtype) if len(a) > 1 else a for a in given]
  hidden = up.kernel.shape[1]
  sums = [(1, d), (1, d), (d, hidden), (1, hidden), (d, hidden), (1, d)]
  sums = [jax.ShapeDtypeStruct((parts, *shape), jnp.float32) for shape in sums]
  to_x, *found = pl.pallas_call(
    functools.partial(_program, length=length, tiles=tiles, epsilon=epsilon, activation=activation),
    name="norm_mlp_gradients",
    grid=(parts, of_part),
    in_specs=[
      *(2 * [pl.BlockSpec((tile, d), rows)]),
      *(pl.BlockSpec(a.shape, lambda part, i: (0, 0), pipeline_mode=pl.Buffered(1)) for a in given),
    ],
    out_specs=[
      pl.BlockSpec((tile, d), rows),
      *(pl.BlockSpec((1, *a.shape[1:]), lambda part, i: (part, 0, 0)) for a in sums),
    ],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype), *sums],
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
      vmem_limit_bytes=_memory(tile, d, hidden, x.dtype.itemsize),
    ),
  )(x, gradient.astype(x.dtype), *given)
  scale, bias, to_up, to_up_bias, to_down, to_down_bias = (a.sum(axis=0) for a in found)
  return (
    to_x,
    Norm(scale[0], bias[0]),
    Linear(to_up, to_up_bias[0]),
    Linear(to_down.T, to_down_bias[0]),
  )


def _program(
  x, gradient, scale, bias, up, up_bias, down, to_x, *sums, length, tiles, epsilon, activation
):
  """The gradients of a tile of rows."""
  at = pl.program_id(0) * pl.num_programs(1) + pl.program_id(1)

  @pl.when(pl.program_id(1) == 0)
  def _():
    for a in sums:
      a[...] = jnp.zeros_like(a)

  @pl.when(at < tiles)
  def _():
    _tile(
      *(x, gradient, scale, bias, up, up_bias, down, to_x, *sums),
      length=length - at * len(x),
      epsilon=epsilon,
      activation=activation,
    )


def _tile(
  x,
  gradient,
  scale,
  bias,
  up,
  up_bias,
  down,
  to_x,
  to_scale,
  to_bias,
  to_up,
  to_up_bias,
  to_down,
  to_down_bias,
  *,
  length,
  epsilon,
  activation,
):
  """The gradients of the first `length` rows of a tile; the others may hold anything."""
  there = lax.broadcasted_iota(jnp.int32, (len(x), 1), 0) < length
  g = jnp.where(there, gradient[...], jnp.zeros_like(gradient))
  wide = jnp.where(there, x[...].astype(jnp.float32), 0.0)
  mean = wide.mean(axis=-1, keepdims=True)
  variance = jnp.maximum((wide * wide).mean(axis=-1, keepdims=True) - mean * mean, 0.0)
  inverse = lax.rsqrt(variance + epsilon)
  standard = (wide - mean) * inverse
  normed = (standard * scale[...] + bias[...]).astype(up.dtype)
  normed_columns, g_columns = normed.T, g.T
  to_normed = 0.0
  for start in range(0, up.shape[1], _CHUNK):
    units = slice(start, min(start + _CHUNK, up.shape[1]))
    hidden, slope = with_slope(activation, dot(normed, up[:, units]) + up_bias[:, units])
    to_hidden = dot(g, down[units, :], transposed=True) * slope
    to_up_bias[0, :, units] += to_hidden.sum(axis=0, keepdims=True)
    to_hidden = to_hidden.astype(up.dtype)
    to_normed += dot(to_hidden, up[:, units], transposed=True)
    to_up[0, :, units] += dot(normed_columns, to_hidden)
    to_down[0, :, units] += dot(g_columns, hidden.astype(up.dtype))
  to_down_bias[0] += g.astype(jnp.float32).sum(axis=0, keepdims=True)
  to_scale[0] += (to_normed * standard).sum(axis=0, keepdims=True)
  to_bias[0] += to_normed.sum(axis=0, keepdims=True)
  to_standard = to_normed * scale[...]
  shared = to_standard.mean(axis=-1, keepdims=True)
  along = (to_standard * standard).mean(axis=-1, keepdims=True)
  to_x[...] = (inverse * (to_standard - shared - standard * along)).astype(to_x.dtype)


def _memory(tile, d, hidden, bytes_):
  """Bytes of vector memory: weights once, their gradients and tiles twice, and room between."""
  return d * hidden * (2 * bytes_ + 2 * 2 * 4) + 8 * tile * (d + min(hidden, _CHUNK)) * 4 + 4 * _MiB
