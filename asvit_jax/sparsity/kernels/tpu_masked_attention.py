"""Attention of training steps on a TPU: every token stays in place, and a mask says who is read.

It is `attentions.Softmax.dense` and `.masked` for whole images, a program an image, with gradients.
No (tokens, tokens) array leaves the vector memory: the backward kernel computes the numerators of
the softmax again, from queries and keys. It has keys in rows and queries in columns, so that what
belongs to a query is a row, which broadcasts for free.

Heads come in pairs, as in `tpu_attention`. What an image lacks to whole registers, the compiler
masks: 197 tokens are no multiple of anything.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.attentions import EPSILON, MAX_LOGIT
from asvit_jax.sparsity.kernels.tpu_attention import HEAD, NEVER
from asvit_jax.sparsity.kernels.tpu_products import LANES, column, dot, eye_of, reciprocal, summed

_SCALE = HEAD**-0.5
_MiB = 2**20


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def attend(qkv, keep, bias, heads, interpret=False):
  """Softmax attention within each image, with gradients for all three arrays.

  Args:
    qkv: (b, n, 3 · p · 128) queries, keys and values of p pairs of heads of 64 channels; if there
      is an odd number of heads, those of the last one are followed by 64 zeros.
    keep: (b, n) float32 mask in [0, 1] of the keys that other tokens read, see
      `attentions.Softmax.masked`; None for `dense`.
    bias: (b, n) float32, added to the logits of every key; None for 0.
    heads: number of heads.
    interpret: whether to interpret the kernels.

  Returns:
    (b, n, p · 128) context, of the type of `qkv`.
  """
  return _forward(qkv, keep, bias, heads, interpret)[0]


# Each is traced once for all blocks.
@functools.partial(jax.jit, static_argnums=(3, 4))
def _forward(qkv, keep, bias, heads, interpret):
  b, n, width = qkv.shape
  context = jax.ShapeDtypeStruct((b, n, width // 3), qkv.dtype)
  kernel = functools.partial(_forward_program, heads=heads)
  (context,) = _by_images(
    kernel, name_of(keep, bias), (qkv, _row(keep), _row(bias)), [context], interpret
  )
  return context, (qkv, keep, bias, context)


def _backward(heads, interpret, saved, gradient):
  return _gradients(*saved, gradient, heads, interpret)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _gradients(qkv, keep, bias, context, gradient, heads, interpret):
  row = jax.ShapeDtypeStruct((len(qkv), 1, qkv.shape[1]), jnp.float32)
  results = [jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)]
  results += [row for a in (keep, bias) if a is not None]
  kernel = functools.partial(
    _backward_program, heads=heads, masked=keep is not None, biased=bias is not None
  )
  arrays = (qkv, _row(keep), _row(bias), context, gradient.astype(qkv.dtype))
  qkv, *rows = _by_images(kernel, f"{name_of(keep, bias)}_gradients", arrays, results, interpret)
  rows = iter(rows)
  keep, bias = (None if a is None else next(rows)[:, 0] for a in (keep, bias))
  return qkv, keep, bias


attend.defvjp(_forward, _backward)


def name_of(keep, bias):
  """The name of the forward kernel in a compiled program."""
  mask, sizes = "dense" if keep is None else "masked", "" if bias is None else "_of_sizes"
  return f"{mask}_attention{sizes}"


def _row(a):
  """(b, n) -> (b, 1, n), of which a program has (1, n)."""
  return None if a is None else a[:, None]


def _by_images(kernel, name, arrays, results, interpret):
  """Runs a kernel on (1, …) parts of (b, …) arrays, of which some may be None."""

  def part(a):
    return pl.BlockSpec((1, *a.shape[1:]), lambda i: (i, 0, 0))

  given = [a for a in arrays if a is not None]

  def program(*references):
    references = iter(references)
    kernel(*(None if a is None else next(references) for a in arrays), *references)

  of_image = sum(a.size // len(a) * a.dtype.itemsize for a in (*given, *results))
  n = arrays[0].shape[1]
  return pl.pallas_call(
    program,
    name=name,
    grid=(len(arrays[0]),),
    in_specs=[part(a) for a in given],
    out_specs=[part(a) for a in results],
    out_shape=results,
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel",),
      # Twice what an image has, as the next one arrives; and some arrays of all pairs of tokens.
      vmem_limit_bytes=3 * of_image + 16 * n * n * 4 + 8 * _MiB,
    ),
  )(*given)


def _forward_program(qkv, keep, bias, context, *, heads):
  """The context of an image; queries are rows, keys are columns."""
  n, channels = context.shape[1:]
  low = lax.broadcasted_iota(jnp.int32, (1, LANES), 1) < HEAD
  offset = None if bias is None else bias[0]  # (1, n)
  if keep is not None:
    visible = jnp.where(eye_of(n), 1.0, keep[0])
    hidden = jnp.where(visible > 0, 0.0, NEVER)
    offset = hidden if offset is None else offset + hidden
  for pair in range(channels // LANES):
    q, k, v = _of_pair(qkv, pair)
    mixed = []
    for own in _halves(low, pair, heads):
      logits = dot(q, _only(own, k), transposed=True)
      logits = logits if offset is None else logits + offset
      mass = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
      mass = mass if keep is None else mass * visible
      # The other head's lanes sum the numerators.
      mixed.append(dot(mass.astype(v.dtype), jnp.where(own, v, jnp.ones_like(v))))
    first, last = mixed[0], mixed[-1]
    total = pltpu.roll(jnp.where(low, last, first), HEAD, 1)
    both = jnp.where(low, first, last)
    if keep is not None:
      both += EPSILON * v.astype(jnp.float32).mean(axis=0, keepdims=True)
      total += EPSILON
    if len(mixed) == 1:
      both, total = jnp.where(low, both, 0.0), jnp.where(low, total, 1.0)
    context[0, :, _lanes(pair)] = (both * reciprocal(total)).astype(context.dtype)


def _backward_program(qkv, keep, bias, context, gradient, to_qkv, *to_rows, heads, masked, biased):
  """The gradients of an image; keys are rows, queries are columns."""
  n, channels = context.shape[1:]
  dtype, eye = qkv.dtype, eye_of(n)
  low = lax.broadcasted_iota(jnp.int32, (1, LANES), 1) < HEAD
  row, lane = (lax.broadcasted_iota(jnp.int32, (16, LANES), axis) for axis in (0, 1))
  halves = jnp.where(row == lax.div(lane, HEAD), 1.0, 0.0)
  epsilon = EPSILON if masked else 0.0
  offset = column(bias[0], eye) if biased else None
  if masked:
    visible = jnp.where(eye, 1.0, column(keep[0], eye))
    hidden = jnp.where(visible > 0, 0.0, NEVER)
    to_visible = 0.0  # (n, n), summed over the heads
  to_offset = 0.0
  for pair in range(channels // LANES):
    q, k, v = _of_pair(qkv, pair)
    g = gradient[0, :, _lanes(pair)]
    # What the gradient gains if all attention of a query grows: it must not.
    gains = g.astype(jnp.float32) * context[0, :, _lanes(pair)].astype(jnp.float32)
    gains = summed(halves, gains, dtype)  # (16, n)
    to_q, to_k, to_v = [], [], []
    for head, own in enumerate(_halves(low, pair, heads)):
      logits = dot(_only(own, k), q, transposed=True)
      logits = logits if offset is None else logits + offset
      peak = (logits + hidden if masked else logits).max(axis=0, keepdims=True)
      if masked:
        exponential = jnp.exp(jnp.minimum(logits - peak, MAX_LOGIT))
        mass = exponential * visible
      else:
        mass = jnp.exp(logits - peak)
      share = reciprocal(mass.sum(axis=0, keepdims=True) + epsilon)  # (1, n) of a unit of mass
      attention = (mass + epsilon / n) * share if masked else mass * share
      to_mass = (dot(v, _only(own, g), transposed=True) - gains[head : head + 1]) * share
      to_logits = mass * to_mass
      if masked:
        to_visible += exponential * to_mass
      if biased:
        to_offset += to_logits
      to_logits = to_logits.astype(dtype)
      to_v.append(dot(attention.astype(dtype), g))
      to_k.append(dot(to_logits, q))
      to_q.append(dot(to_logits.T, k) * _SCALE)
    for part, found in enumerate((to_q, to_k, to_v)):
      both = jnp.where(low, found[0], found[1] if len(found) > 1 else 0.0)
      to_qkv[0, :, _lanes(pair, part, channels)] = both.astype(dtype)
  to_rows = iter(to_rows)
  if masked:
    # No mask hides a token from itself.
    next(to_rows)[0] = _sums(jnp.where(eye, 0.0, to_visible), eye)
  if biased:
    next(to_rows)[0] = _sums(to_offset, eye)


def _lanes(pair, part=0, channels=0):
  """The slice of a pair's lanes in the queries, keys or values: part 0, 1 or 2."""
  start = part * channels + pair * LANES
  return slice(start, start + LANES)


def _of_pair(qkv, pair):
  """Scaled queries, keys and values of a pair of heads, (n, 128) each."""
  channels = qkv.shape[2] // 3
  q, k, v = (qkv[0, :, _lanes(pair, part, channels)] for part in range(3))
  return q * _SCALE, k, v


def _halves(low, pair, heads):
  """The masks of the lanes of a pair's heads, (1, 128) each."""
  return (low, ~low)[: heads - 2 * pair]


def _only(own, a):
  return jnp.where(own, a, jnp.zeros_like(a))


def _sums(a, eye):
  """The sums of the rows of an (n, n) array -> (1, n)."""
  return jnp.where(eye, a.sum(axis=1, keepdims=True), 0.0).sum(axis=0, keepdims=True)
