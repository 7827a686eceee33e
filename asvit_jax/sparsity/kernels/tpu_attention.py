"""Attention over flat rows on a TPU: a program an image, of the rows of its tokens only.

While a program computes, the rows of the next image arrive and the context of the last one leaves.
Heads come in pairs that fill the 128 lanes of a register. Instead of moving the lanes of a head,
a program sets those of the other one to 0 in its keys, and to 1 in its values: then the product
that mixes values also sums the softmax's numerators.

Before a stage, it also computes the tokens' attention scores, `scores.ClassAttention.gather`: the
attention of the class token is the first row of the softmax that it computes anyway.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.kernels.tpu_copies import (
  TILE,
  by_group,
  group_of,
  image_of_group,
  prefetch,
  reader,
  row_of,
  slot_of,
  switch,
  tiled,
  write_behind,
  writer,
)
from asvit_jax.sparsity.kernels.tpu_products import LANES, dot, reciprocal, summed

HEAD = LANES // 2
STEP = 32  # keys between two widths that programs are compiled for
NEVER = -1e30  # a finite logit for keys that are not there


def pairs_of(heads):
  """The number of pairs of heads; the last one may have a single head."""
  return -(-heads // 2)


def widths_to(width):
  """The numbers of keys that programs are compiled for, in a tuple."""
  return (*range(STEP, width, STEP), width)


# Traced once for all blocks.
@functools.partial(
  jax.jit, static_argnames=("heads", "width", "first", "scores", "widths", "interpret")
)
def attend(
  qkv,
  start,
  count,
  bias=None,
  *,
  heads,
  width,
  first=None,
  scores=False,
  widths=None,
  interpret=False,
):
  """Softmax attention within each image.

  Args:
    qkv: (length, 3 · p · 128) rows: queries, keys and values of p pairs of heads of 64 channels;
      if there is an odd number of heads, those of the last one are followed by 64 of any finite
      value.
    start: (b,) int32, the first row of each image, a multiple of 8. No two images share a row,
      if counts are rounded up to 8.
    count: (b,) int32, the number of its tokens, at least 1.
    bias: (b, width) float32 to add to the logits of each key; `NEVER` for keys that are not there.
      None for none.
    heads: number of heads.
    width: a multiple of 8, which no count is above.
    first: number of queries, the first of each image, a multiple of 8; None for all.
    scores: whether to return the attention scores, too; not with `first`.
    widths: the numbers of keys that programs are compiled for, at most `STEP` apart, a tuple;
      `widths_to(width)` by default. The last one holds all counts.
    interpret: whether to interpret the kernel.

  Returns:
    (length, p · 128) rows, the context; with `first`, (b · first, p · 128). With `scores`, a pair
    of it and of (b, width) float32, the attention score of every token, 0 where there is none.
  """
  b, pairs = len(start), pairs_of(heads)
  channels = pairs * LANES
  assert first is None or not scores
  given = [] if bias is None else [bias]
  # Two halves if there are neither biases nor scores, for the two cores of some chips.
  images = group_of(b) if given or scores else pl.cdiv(b, 2)
  kernel = functools.partial(
    _program,
    images=images,
    all_images=b,
    heads=heads,
    first=first,
    widths=widths or widths_to(width),
    biased=bias is not None,
    scored=scores,
    interpret=interpret,
  )
  length = len(qkv) if first is None else b * first

  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  out_specs, out_shape = [anywhere], [jax.ShapeDtypeStruct((length, channels), qkv.dtype)]
  if scores:
    out_specs.append(by_group(images, width))
    out_shape.append(jax.ShapeDtypeStruct((b, width), jnp.float32))
  buffers = [
    pltpu.VMEM((2, width, 3 * channels), qkv.dtype),
    pltpu.VMEM((2, first or width, channels), qkv.dtype),
    pltpu.SemaphoreType.DMA((2,)),
    pltpu.SemaphoreType.DMA((2,)),
    *([pltpu.VMEM((1, width), jnp.float32)] if scores else []),
  ]
  out = pl.pallas_call(
    kernel,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(pl.cdiv(b, images), images),
      in_specs=[*(by_group(images, width) for _ in given), anywhere],
      out_specs=out_specs,
      scratch_shapes=buffers,
    ),
    out_shape=out_shape,
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
    name="scored" if scores else "attend",
  )(start, count, *given, qkv)
  return tuple(out) if scores else out[0]


def _program(
  start, count, *rest, images, all_images, heads, first, widths, biased, scored, interpret
):
  """The program of one image; see `attend`."""
  bias, rest = (rest[0], rest[1:]) if biased else (None, rest)
  if scored:
    qkv, out, all_scores, rows, context, arrived, left, own_scores = rest
  else:
    qkv, out, rows, context, arrived, left = rest
  i, begin, here = image_of_group(images, all_images)
  reads = reader(qkv, start, count, begin, rows, arrived, interpret)
  writes = writer(context, out, start, count, begin, left, interpret)

  def writes_first(i, act):
    slot, target = slot_of(i), pl.ds(pl.multiple_of((begin + i) * first, TILE), first)
    act(pltpu.make_async_copy(context.at[slot], out.at[target], left.at[slot]))

  @pl.when(i < here)
  def _():
    prefetch(i, here, reads)
    tokens, slot = count[begin + i], slot_of(i)

    def attend(keys):
      key = lax.broadcasted_iota(jnp.int32, (1, keys), 1)
      row = jnp.where(key < tokens, 0.0, NEVER)
      if biased:
        row = bias[row_of(i)][:, :keys]
      attention = _attend(rows.at[slot], row, context.at[slot], tokens, first or keys, heads)
      if scored:
        found = _scores(attention, context.at[slot], heads)
        own_scores[...] = jnp.zeros_like(own_scores)
        own_scores[:, :keys] = jnp.where(key < tokens, found, 0.0)
        # Not at once: Mosaic stores a part of a row only where the row is static.
        all_scores[row_of(i)] = own_scores[...]

    leaves = writes if first is None else writes_first
    write_behind(i, here, leaves, lambda: switch(tiled(tokens), widths, attend))


def _attend(rows, bias, context, count, queries, heads):
  """Attention of the first `queries` rows to as many rows as the (1, keys) bias has, both static.

  Returns:
    For each head, (1, keys) float32: the softmax's numerators of the first query.
  """
  keys, pairs = bias.shape[1], pairs_of(heads)
  channels = pairs * LANES
  # What is not there must not be NaN: even 0 times NaN is.
  rest = max(keys - STEP - TILE, 0)
  tail = rows[rest:keys, channels:]
  row = rest + lax.broadcasted_iota(jnp.int32, tail.shape, 0)
  rows[rest:keys, channels:] = jnp.where(row < count, tail, jnp.zeros_like(tail))
  lane = lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
  owns = lane < HEAD, lane >= HEAD
  # All heads take each step before the next one, so that none waits for another, and everything is
  # read before anything is written.
  logits, values = [], []
  for head in range(heads):
    at, own = head // 2 * LANES, owns[head % 2]
    q, k, v = (slice(at + part, at + part + LANES) for part in range(0, 3 * channels, channels))
    q, k, v = rows[:queries, q] * HEAD**-0.5, rows[:keys, k], rows[:keys, v]
    logits.append(dot(q, jnp.where(own, k, jnp.zeros_like(k)), transposed=True) + bias)
    values.append(jnp.where(own, v, jnp.ones_like(v)))
  masses = [jnp.exp(a - a.max(axis=-1, keepdims=True)) for a in logits]
  mixed = [dot(mass.astype(rows.dtype), v) for mass, v in zip(masses, values, strict=True)]
  contexts = []
  for pair in range(pairs):
    # One head's lanes hold its context, the others its total.
    low, high = mixed[2 * pair], mixed[min(2 * pair + 1, heads - 1)]
    total = pltpu.roll(jnp.where(owns[0], high, low), HEAD, 1)
    both = jnp.where(owns[0], low, high) * reciprocal(total)
    contexts.append(both if 2 * pair + 1 < heads else jnp.where(owns[0], both, 0.0))
  for pair, both in enumerate(contexts):
    context[:queries, pair * LANES : (pair + 1) * LANES] = both.astype(context.dtype)
  return [mass[:1] for mass in masses]


def _scores(masses, context, heads):
  """The attention scores of tokens: class attention, weighted by the norms of heads.

  Args:
    masses: for each head, (1, keys), see `_attend`.
    context: reference (…, channels), the context.
    heads: number of heads.

  Returns:
    (1, keys) float32.
  """
  keys, dtype = masses[0].shape[1], context.dtype
  # A row for each head; those of no head count 0.
  shape = tiled(heads), keys
  row = lax.broadcasted_iota(jnp.int32, shape, 0)
  mass = jnp.broadcast_to(masses[0], shape)
  for head in range(1, heads):
    mass = jnp.where(row == head, masses[head], mass)
  attention = mass * reciprocal(mass.sum(axis=-1, keepdims=True))
  head, lane = (lax.broadcasted_iota(jnp.int32, (shape[0], LANES), axis) for axis in (0, 1))
  squares = 0.0
  for pair in range(pairs_of(heads)):
    own = jnp.where(head == 2 * pair + lax.div(lane, HEAD), 1.0, 0.0)
    mixed = context[:keys, pair * LANES : (pair + 1) * LANES].astype(jnp.float32)
    squares += summed(own, jnp.square(mixed), dtype)
  norms = jnp.sqrt(squares)
  weighted = (norms * attention).sum(axis=0, keepdims=True)
  return weighted / (norms.sum(axis=0, keepdims=True) + 1e-8)
