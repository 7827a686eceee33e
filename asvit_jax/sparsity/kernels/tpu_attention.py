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
  slot_of,
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
      The width is a multiple of 8, and no count is above it.
    start: (b,) int32, the first row of each image, a multiple of 8. No two images share a row,
      if counts are rounded up to 8.
    count: (b,) int32, the number of its tokens, at least 1.
    heads: number of heads.
    first: number of queries, the first of each image, a multiple of 8; None for all.
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
    interpret=interpret,
  )
  length = len(qkv) if first is None else b * first

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
      in_specs=[pl.BlockSpec(memory_space=pltpu.VMEM), anywhere],
      out_specs=anywhere,
      scratch_shapes=buffers,
    ),
    out_shape=jax.ShapeDtypeStruct((length, channels), qkv.dtype),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
      # The usual limit, and the bias of all images, each in whole registers.
      vmem_limit_bytes=2**24 + b * pl.cdiv(width, LANES) * LANES * 4,
    ),
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
  interpret,
):
  """The program of one image; see `attend`."""
  i = pl.program_id(1)
  begin = pl.program_id(0) * images
  here = jnp.minimum(images, all_images - begin)  # images of this core

  def reads(i, act):
    image, slot = begin + i, slot_of(i)
    target = rows.at[slot]
    copy_rows(qkv, start[image], target, 0, tiled(count[image]), arrived.at[slot], act, interpret)

  def writes(i, act):
    image, slot = begin + i, slot_of(i)
    source, semaphore = context.at[slot], left.at[slot]
    if first is None:
      copy_rows(source, 0, out, start[image], tiled(count[image]), semaphore, act, interpret)
    else:
      act(
        pltpu.make_async_copy(
          source, out.at[pl.ds(pl.multiple_of(image * first, TILE), first)], semaphore
        )
      )

  @pl.when(i < here)
  def _():
    prefetch(i, here, reads)
    tokens, slot = count[begin + i], slot_of(i)

    def attend(keys):
      of_image = rows.at[slot], bias[begin + i], context.at[slot]
      _attend(*of_image, tokens, keys, first or keys, heads)

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
  bias = bias[:, :keys]
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
  masses = [jnp.exp(a - a.max(axis=-1, keepdims=True)).astype(rows.dtype) for a in logits]
  mixed = [dot(mass, v) for mass, v in zip(masses, values, strict=True)]
  contexts = []
  for pair in range(pairs):
    # One head's lanes hold its context, the others its total.
    low, high = mixed[2 * pair], mixed[min(2 * pair + 1, heads - 1)]
    total = pltpu.roll(jnp.where(owns[0], high, low), HEAD, 1)
    both = jnp.where(owns[0], low, high) * reciprocal(total)
    contexts.append(both if 2 * pair + 1 < heads else jnp.where(owns[0], both, 0.0))
  for pair, both in enumerate(contexts):
    context[:queries, pair * LANES : (pair + 1) * LANES] = both.astype(context.dtype)
