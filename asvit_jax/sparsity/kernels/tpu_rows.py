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

from asvit_jax.sparsity.kernels.tpu_products import LANES, activate, dot, layer_norm

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
  vectors = (*norm, linear.bias)
  return _by_tiles(kernel, total, (x,), vectors, (linear.kernel,), interpret)


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
  vectors = linear.bias, gain
  return _by_tiles(_linear_residual, total, (x, y), vectors, (linear.kernel,), interpret)


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
  vectors = (*norm, up.bias, down.bias, gain)
  return _by_tiles(kernel, total, (x,), vectors, (up.kernel, down.kernel), interpret)


@functools.partial(jax.jit, static_argnames=("epsilon", "activation", "interpret"))
def norm_mlp(x, norm, up, down, *, epsilon, activation, interpret=False):
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
  kernel = functools.partial(_norm_mlp, epsilon=epsilon, activation=activation)
  vectors, weights = (*norm, up.bias, down.bias), (up.kernel, down.kernel)
  return _by_tiles(kernel, len(x), (x,), vectors, weights, interpret)


def _norm_linear(x, vectors, weight, out, *, epsilon):
  scale, bias, offset = vectors
  normed = layer_norm(x[...], scale, bias, epsilon).astype(weight.dtype)
  out[...] = (dot(normed, weight[...]) + offset).astype(out.dtype)


def _linear_residual(x, y, vectors, weight, out):
  offset, gain = vectors
  moved = (dot(y[...], weight[...]) + offset) * gain
  out[...] = (x[...].astype(jnp.float32) + moved).astype(out.dtype)


def _mlp_residual(x, vectors, up, down, out, *, epsilon, activation):
  *vectors, gain = vectors
  moved = _fed_forward(x, vectors, up, down, epsilon, activation) * gain
  out[...] = (x[...].astype(jnp.float32) + moved).astype(out.dtype)


def _norm_mlp(x, vectors, up, down, out, *, epsilon, activation):
  out[...] = _fed_forward(x, vectors, up, down, epsilon, activation).astype(out.dtype)


def _fed_forward(x, vectors, up, down, epsilon, activation):
  scale, bias, up_bias, down_bias = vectors
  normed = layer_norm(x[...], scale, bias, epsilon).astype(up.dtype)
  hidden = activate(activation, dot(normed, up[...]) + up_bias).astype(down.dtype)
  return dot(hidden, down[...]) + down_bias


def _by_tiles(kernel, total, rows, vectors, weights, interpret):
  """Runs a kernel on tiles of rows.

  Args:
    kernel: function of references of a tile of each of `rows`; the `vectors`, (1, n) each; and
      references of the `weights` and of the result.
    total: () int32, the number of rows to compute.
    rows: arrays (length, …).
    vectors: float32 arrays (n,).
    weights: matrices (from, to); the last one has as many columns as the result.
    interpret: whether to interpret the kernel.

  Returns:
    (length, to) rows of the type of the first of `rows`.
  """
  tile, width = min(TILE, len(rows[0])), weights[-1].shape[1]
  whole = [*map(_in_lanes, vectors), *weights]

  def run(*references):
    tiles, rest = references[: len(rows)], references[len(rows) :]
    kernel(*tiles, [_as_row(a) for a in rest[: len(vectors)]], *rest[len(vectors) :])

  def rows_of(width):
    return pl.BlockSpec((tile, width), lambda i: (i, 0))

  once = [pl.BlockSpec(a.shape, lambda i: (0, 0), pipeline_mode=pl.Buffered(1)) for a in whole]
  return pl.pallas_call(
    run,
    grid=(pl.cdiv(total, tile),),
    in_specs=[*(rows_of(a.shape[1]) for a in rows), *once],
    out_specs=rows_of(width),
    out_shape=jax.ShapeDtypeStruct((len(rows[0]), width), rows[0].dtype),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel",), vmem_limit_bytes=_memory(tile, rows, whole, width)
    ),
    name=getattr(kernel, "func", kernel).__name__.removeprefix("_"),
  )(*rows, *whole)


def _in_lanes(vector):
  """(n,) -> (n / 128, 128), which lies in memory as before; or (1, n), which XLA has to copy."""
  return vector.reshape((1, -1) if len(vector) % LANES else (-1, LANES))


def _as_row(vector):
  """A reference of what `_in_lanes` returns -> (1, n)."""
  rows = [vector[i : i + 1] for i in range(len(vector))]
  return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=1)


def _memory(tile, rows, weights, width):
  """Bytes of vector memory: weights once, tiles twice, and room for what is between."""
  widest = max(width, *(a.shape[1] for a in weights))
  between = 4 * tile * 8 * widest
  tiles = 2 * tile * rows[0].dtype.itemsize * (width + sum(a.shape[1] for a in rows))
  return between + tiles + sum(max(8, a.shape[0]) * a.shape[1] * a.dtype.itemsize for a in weights)
