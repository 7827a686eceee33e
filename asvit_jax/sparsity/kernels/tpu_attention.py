"""Attention over flat rows on a TPU: a program an image, of the rows of its tokens only.

While a program computes, the rows of the next image arrive and the context of the last one leaves.
Heads come in pairs that fill the 128 lanes of a register. Instead of moving the lanes of a head,
a program sets those of the other one to 0 in its keys, and to 1 in its values: then the product
that mixes values also sums the softmax's numerators.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.kernels.tpu_copies import (
  TILE,
  copy_rows,
  prefetch,
  switch,
  tiled,
  write_behind,
)
from asvit_jax.sparsity.kernels.tpu_products import LANES, dot, reciprocal

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
@functools.partial(jax.jit, static_argnames=("heads", "first", "widths", "interpret"))
def attend(qkv, bias, start, count, *, heads, first=None, widths=None, interpret=False):
  """Softmax attention within each image.

  Args:
    qkv: (length, 3 · p · 128) rows: queries, keys and values of p pairs of heads of 64 channels;
      if there is an odd number of heads, those of the last one are followed by 64 of any finite
      value.
    bias: (b, width) float32 to add to the logits of each key; `NEVER` for keys that are not there.
      The width is a multiple of 16, and no count is above it.
    start: (b,) int32, the first row of each image, a multiple of 16. No two images share a row,
      if counts are rounded up to 16.
    count: (b,) int32, the number of its tokens.
    heads: number of heads.
    first: number of queries, the first of each image, a multiple of 16; None for all.
    widths: the numbers of keys that programs are compiled for, at most `STEP` apart, a tuple;
      `widths_to(width)` by default. The last one holds all counts.
    interpret: whether to interpret the kernel.

  Returns:
    (length, p · 128) rows, the context; with `first`, (b · first, p · 128).
  """
  (b, width), pairs = bias.shape, pairs_of(heads)
  channels = pairs * LANES
  halves = 2 if b > 1 else 1  # for the two cores of some chips
  images = pl.cdiv(b, halves)
  kernel = functools.partial(
    _program,
    images=images,
    all_images=b,
    heads=heads,
    first=first,
    widths=widths or widths_to(width),
  )
  length = len(qkv) if first is None else b * first

  def of_image(half, i, *_):
    return jnp.minimum(half * images + i, b - 1), 0, 0

  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  buffers = [
    pltpu.VMEM((2, width, 3 * channels), qkv.dtype),
    pltpu.VMEM((2, first or width, channels), qkv.dtype),
    pltpu.SemaphoreType.DMA((2,)),
    pltpu.SemaphoreType.DMA((2,)),
  ]
  return pl.pallas_call(
    kernel,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(halves, images),
      in_specs=[pl.BlockSpec((1, 1, width), of_image), anywhere],
      out_specs=anywhere,
      scratch_shapes=buffers,
    ),
    out_shape=jax.ShapeDtypeStruct((length, channels), qkv.dtype),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
  )(start, count, bias[:, None], qkv)


def _program(
  start,
  count,
  bias,
  qkv,
  out,
  rows,
  context,
  arrived,
  left,
  *,
  images,
  all_images,
  heads,
  first,
  widths,
):
  """The program of one image; see `attend`."""
  i = pl.program_id(1)
  begin = pl.program_id(0) * images
  here = jnp.minimum(images, all_images - begin)  # images of this core

  def reads(i, act):
    image, slot = begin + i, lax.rem(i, 2)
    target = rows.at[slot]
    copy_rows(qkv, start[image], target, 0, tiled(count[image]), arrived.at[slot], act)

  def writes(i, act):
    image, slot = begin + i, lax.rem(i, 2)
    source, semaphore = context.at[slot], left.at[slot]
    if first is None:
      copy_rows(source, 0, out, start[image], tiled(count[image]), semaphore, act)
    else:
      act(
        pltpu.make_async_copy(
          source, out.at[pl.ds(pl.multiple_of(image * first, TILE), first)], semaphore
        )
      )

  @pl.when(i < here)
  def _():
    prefetch(i, here, reads)
    tokens, slot = count[begin + i], lax.rem(i, 2)

    def attend(keys):
      _attend(rows.at[slot], bias, context.at[slot], tokens, keys, first or keys, heads)

    write_behind(i, here, writes, lambda: switch(tiled(tokens), widths, attend))


def _attend(rows, bias, context, count, keys, queries, heads):
  """Attention of the first `queries` rows to the first `keys` rows, both static."""
  pairs = pairs_of(heads)
  channels = pairs * LANES
  # What is not there must not be NaN: even 0 times NaN is.
  rest = max(keys - STEP - TILE, 0)
  tail = rows[rest:keys, channels:]
  row = rest + lax.broadcasted_iota(jnp.int32, tail.shape, 0)
  rows[rest:keys, channels:] = jnp.where(row < count, tail, jnp.zeros_like(tail))
  lane = lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
  bias = bias[0, :, :keys]
  for pair in range(pairs):
    q, k, v = (slice(at, at + LANES) for at in range(pair * LANES, 3 * channels, channels))
    mine, q, k, v = q, rows[:queries, q] * HEAD**-0.5, rows[:keys, k], rows[:keys, v]
    mixed = []
    for own in (lane < HEAD, lane >= HEAD)[: heads - 2 * pair]:
      logits = dot(q, jnp.where(own, k, jnp.zeros_like(k)), transposed=True) + bias
      mass = jnp.exp(logits - logits.max(axis=-1, keepdims=True)).astype(v.dtype)
      mixed.append(dot(mass, jnp.where(own, v, jnp.ones_like(v))))
    # One head's lanes hold its context, the others its total.
    low, high = mixed[0], mixed[-1]
    total = pltpu.roll(jnp.where(lane < HEAD, high, low), HEAD, 1)
    both = jnp.where(lane < HEAD, low, high) * reciprocal(total)
    if len(mixed) == 1:
      both = jnp.where(lane < HEAD, both, 0.0)
    context[:queries, mine] = both.astype(context.dtype)
