"""The parts of a block that act on rows, on a TPU: only on the rows that there are.

The grid of a kernel is as long as the rows, which the device knows, take tiles of `TILE`. Weights
stay in the vector memory from the first tile to the last.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.kernels.tpu_products import activate, dot, layer_norm

TILE = 256


class Norm(NamedTuple):
  """A layer norm: (d,) scale and (d,) bias."""

  scale: jax.Array
  bias: jax.Array


class Linear(NamedTuple):
  """A linear layer: (from, to) kernel, in the type to compute in, and (to,) bias."""

  kernel: jax.Array
  bias: jax.Array


# Traced once for all blocks.
@functools.partial(jax.jit, static_argnames=("epsilon", "interpret"))
def norm_linear(x, total, norm, linear, *, epsilon, interpret=False):
  """The layer norm of rows, and a linear layer.

  Args:
    x: (length, d) rows.
    total: () int32, the number of rows to compute; those beyond are undefined.
    norm: a `Norm`.
    linear: a `Linear`.
    epsilon: of the norm.
    interpret: whether to interpret the kernel.

  Returns:
    (length, to) rows.
  """
  kernel = functools.partial(_norm_linear, epsilon=epsilon)
  weights = (*norm, *linear)
  return _by_tiles(kernel, total, (x,), weights, linear.kernel.shape[1], interpret)


@functools.partial(jax.jit, static_argnames="interpret")
def linear_residual(x, y, total, linear, gain, *, interpret=False):
  """Rows plus a linear layer of others: x + gain · linear(y).

  Args:
    x: (length, d) rows.
    y: (length, from) rows.
    total: as for `norm_linear`.
    linear: a `Linear`.
    gain: (d,) float32.
    interpret: as for `norm_linear`.

  Returns:
    (length, d) rows.
  """
  weights = (*linear, gain)
  return _by_tiles(_linear_residual, total, (x, y), weights, x.shape[1], interpret)


@functools.partial(jax.jit, static_argnames=("epsilon", "activation", "interpret"))
def mlp_residual(x, total, norm, up, down, gain, *, epsilon, activation, interpret=False):
  """Rows plus their MLP: x + gain · down(activation(up(norm(x)))).

  Args:
    x: (length, d) rows.
    total: as for `norm_linear`.
    norm: a `Norm`.
    up: a `Linear`.
    down: a `Linear`.
    gain: (d,) float32.
    epsilon: of the norm.
    activation: name in `vit.layers.ACTIVATIONS`.
    interpret: as for `norm_linear`.

  Returns:
    (length, d) rows.
  """
  kernel = functools.partial(_mlp_residual, epsilon=epsilon, activation=activation)
  weights = (*norm, *up, *down, gain)
  return _by_tiles(kernel, total, (x,), weights, x.shape[1], interpret)


@functools.partial(jax.jit, static_argnames=("epsilon", "activation", "interpret"))
def mlp(x, norm, up, down, *, epsilon, activation, interpret=False):
  """The MLP of all rows, without the residual: down(activation(up(norm(x)))).

  Args:
    x: (length, d) rows.
    norm: a `Norm`.
    up: a `Linear`.
    down: a `Linear`.
    epsilon: of the norm.
    activation: name in `vit.layers.ACTIVATIONS`.
    interpret: as for `norm_linear`.

  Returns:
    (length, d) rows.
  """
  kernel = functools.partial(_mlp, epsilon=epsilon, activation=activation)
  weights = (*norm, *up, *down)
  return _by_tiles(kernel, len(x), (x,), weights, x.shape[1], interpret, "norm_mlp")


def _norm_linear(x, scale, bias, weight, offset, out, *, epsilon):
  normed = layer_norm(x[...], scale[...], bias[...], epsilon).astype(weight.dtype)
  out[...] = (dot(normed, weight[...]) + offset[...]).astype(out.dtype)


def _linear_residual(x, y, weight, offset, gain, out):
  moved = (dot(y[...], weight[...]) + offset[...]) * gain[...]
  out[...] = (x[...].astype(jnp.float32) + moved).astype(out.dtype)


def _mlp_residual(x, *references, epsilon, activation):
  *weights, gain, out = references
  moved = _fed_forward(x, *weights, epsilon, activation) * gain[...]
  out[...] = (x[...].astype(jnp.float32) + moved).astype(out.dtype)


def _mlp(x, *references, epsilon, activation):
  *weights, out = references
  out[...] = _fed_forward(x, *weights, epsilon, activation).astype(out.dtype)


def _fed_forward(x, scale, bias, up, up_bias, down, down_bias, epsilon, activation):
  normed = layer_norm(x[...], scale[...], bias[...], epsilon).astype(up.dtype)
  hidden = activate(activation, dot(normed, up[...]) + up_bias[...]).astype(down.dtype)
  return dot(hidden, down[...]) + down_bias[...]


def _by_tiles(kernel, total, rows, weights, width, interpret, name=None):
  """Runs a kernel on tiles of rows.

  Args:
    kernel: function of references: a tile of each of `rows`, each of `weights`, and the result.
    total: () int32, the number of rows to compute.
    rows: arrays (length, …).
    weights: arrays (…, to), whole; vectors become (1, to).
    width: width of the result.
    interpret: whether to interpret the kernel.
    name: name of the kernel in a compiled program; None for that of the jitted function.

  Returns:
    (length, width) rows of the type of the first of `rows`.
  """
  weights = [a.reshape(-1, a.shape[-1]) for a in weights]
  tile = min(TILE, len(rows[0]))

  def rows_of(width):
    return pl.BlockSpec((tile, width), lambda i: (i, 0))

  whole = [pl.BlockSpec(a.shape, lambda i: (0, 0), pipeline_mode=pl.Buffered(1)) for a in weights]
  return pl.pallas_call(
    kernel,
    name=name,
    grid=(pl.cdiv(total, tile),),
    in_specs=[*(rows_of(a.shape[1]) for a in rows), *whole],
    out_specs=rows_of(width),
    out_shape=jax.ShapeDtypeStruct((len(rows[0]), width), rows[0].dtype),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel",), vmem_limit_bytes=_memory(tile, rows, weights, width)
    ),
  )(*rows, *weights)


def _memory(tile, rows, weights, width):
  """Bytes of vector memory: weights once, tiles twice, and room for what is between."""
  widest = max(width, *(a.shape[1] for a in weights))
  between = 4 * tile * 8 * widest
  tiles = 2 * tile * rows[0].dtype.itemsize * (width + sum(a.shape[1] for a in rows))
  return between + tiles + sum(max(8, a.shape[0]) * a.shape[1] * a.dtype.itemsize for a in weights)
