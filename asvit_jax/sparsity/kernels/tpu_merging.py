"""What a stage that merges by cost decides, on a TPU: a program an image.

It is `scores.MergeCost`, a threshold, and the destinations of `reductions.MergeTokens`. All pairs
of tokens are compared in the vector memory: nothing (n, n) leaves it.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.core.finite import finite
from asvit_jax.sparsity.kernels.tpu_copies import (
  by_group,
  group_of,
  image_of_group,
  prefetch,
  reader,
  row_of,
  slot_of,
  switch,
  tiled,
)
from asvit_jax.sparsity.kernels.tpu_products import LANES, column, dot
from asvit_jax.sparsity.scores import merge_cost, unit


def widths_to(width):
  """The numbers of tokens that programs are compiled for, in a tuple."""
  return (LANES, width) if width > LANES else (width,)


# Traced once for all stages.
@functools.partial(jax.jit, static_argnames=("exponents", "prefix", "widths", "interpret"))
def merges(
  x,
  start,
  count,
  attention,
  sizes,
  position,
  threshold,
  *,
  exponents,
  prefix,
  widths=None,
  interpret=False,
):
  """Decides which tokens of every image are kept, and into which ones the others are merged.

  Args:
    x: (length, d) rows.
    start: (b,) int32, the first row of each image, a multiple of 8.
    count: (b,) int32, the number of its tokens.
    attention: (b, width) float32 attention scores of the tokens. The width is a multiple of 8, at
      most 256.
    sizes: (b, width) float32, the size of each token, 0 if it is not there.
    position: (b, width) int32, the original index of each token in its image, below 256.
    threshold: () float32: a token is kept if its cost exceeds it.
    exponents: of the cost, a tuple; see `scores.MergeCost`.
    prefix: number of tokens before the patches, which are kept as they are.
    widths: the numbers of tokens that programs are compiled for, multiples of 8, a tuple;
      `widths_to(width)` by default. The last one holds all counts.
    interpret: whether to interpret the kernel.

  Returns:
    (b, width) arrays: int32 destination, the token that each one is part of after the stage, itself
    if it is kept, `width` for none; int32 place of that token after the stage, -1 for none; and of
    the tokens after the stage, in their places, float32 sizes and int32 positions, 0 beyond.
  """
  (b, width), d = sizes.shape, x.shape[1]
  dtypes = jnp.int32, jnp.int32, jnp.float32, jnp.int32
  images = group_of(b)
  rows = by_group(images, width)
  return pl.pallas_call(
    functools.partial(
      _merges,
      images=images,
      all_images=b,
      exponents=exponents,
      prefix=prefix,
      widths=widths or widths_to(width),
      interpret=interpret,
    ),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(pl.cdiv(b, images), images),
      in_specs=[pl.BlockSpec(memory_space=pl.ANY), rows, rows, rows],
      out_specs=[rows] * 4,
      scratch_shapes=[
        pltpu.VMEM((2, width, d), x.dtype),
        pltpu.SemaphoreType.DMA((2,)),
        *(pltpu.VMEM((1, width), dtype) for dtype in dtypes),
      ],
    ),
    out_shape=[jax.ShapeDtypeStruct((b, width), dtype) for dtype in dtypes],
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
    name="merges",
  )(start, count, threshold.reshape(1), x, attention, sizes, position)


def _merges(
  start,
  count,
  threshold,
  x,
  attention,
  sizes,
  position,
  *rest,
  images,
  all_images,
  exponents,
  prefix,
  widths,
  interpret,
):
  """The program of one image; see `merges`."""
  out, (rows, arrived, *found) = rest[:4], rest[4:]
  i, begin, here = image_of_group(images, all_images)

  def run(keys):
    tokens, number = rows[slot_of(i)][:keys], count[begin + i]
    there = lax.broadcasted_iota(jnp.int32, tokens.shape, 0) < number
    tokens = unit(jnp.where(there, tokens, jnp.zeros_like(tokens)))
    scored, of, at = (a[row_of(i)][:, :keys] for a in (attention, sizes, position))
    keep, destination = _decided(
      *(dot(tokens, tokens, transposed=True), scored, of),
      *(number, threshold[0], exponents, prefix, rows.shape[1]),
    )
    decided = destination, *_moved(keep, destination, of, at.astype(jnp.float32))
    for row, a in zip(found, decided, strict=True):
      row[:, :keys] = a.astype(row.dtype)

  @pl.when(i < here)
  def _():
    prefetch(i, here, reader(x, start, count, begin, rows, arrived, interpret))
    # As for tokens that are not there; programs of fewer tokens than there is room for leave it.
    for row, value in zip(found, (rows.shape[1], -1, 0, 0), strict=True):
      row[...] = jnp.full_like(row, value)
    switch(tiled(count[begin + i]), widths, run)
    # Not at once: Mosaic stores a part of a row only where the row is static.
    for of_images, row in zip(out, found, strict=True):
      of_images[row_of(i)] = row[...]


def _decided(similarity, attention, sizes, count, threshold, exponents, prefix, none):
  """What is decided about one image.

  Args:
    similarity: (width, width) float32, symmetric.
    attention: (1, width), see `merges`; `sizes` likewise.
    sizes: (1, width).
    count: number of tokens.
    threshold: see `merges`; `exponents` and `prefix` likewise.
    exponents: a tuple.
    prefix: a number.
    none: the destination of tokens that go nowhere.

  Returns:
    (1, width) float32, 1 for kept tokens and 0 for others; and (1, width) float32 destinations.
  """
  width = len(similarity)
  # Tokens are along the lanes, and the others that they are compared with along the sublanes.
  other, token = (lax.broadcasted_iota(jnp.int32, (width, width), axis) for axis in (0, 1))
  index = other.astype(jnp.float32)
  place = token[:1]

  def largest(mask, a, least):
    return jnp.where(mask, a, least).max(axis=0, keepdims=True)

  patches = (place >= prefix) & (place < count)
  size = column(sizes)
  others = (other >= prefix) & (other < count)
  more = (column(attention) > attention) & others
  nearest = largest(more, similarity, -jnp.inf)
  # The token with the most attention is like none before it.
  alike = jnp.where(finite(nearest), nearest, 0.0)
  of_other = largest(more & (similarity >= nearest), size, 0.0)
  of_other = jnp.where(of_other > 0, of_other, sizes)
  cost = merge_cost.cost(attention, alike, sizes, of_other, patches, exponents)
  keep = jnp.where((patches & (cost > threshold)) | (place < prefix), 1.0, 0.0)

  takes = (column(keep) > 0) & others
  nearest = largest(takes, similarity, -jnp.inf)
  first = -largest(takes & (similarity >= nearest), -index, -float(none))
  destination = jnp.where(patches, first, float(none))
  return keep, jnp.where(keep > 0, place.astype(jnp.float32), destination)


def _moved(keep, destination, sizes, position):
  """What `merges` returns after the destinations, from what `_decided` does.

  Products of zeros and ones with numbers up to 256 are exact in bfloat16.
  """
  width = keep.shape[1]
  token = lax.broadcasted_iota(jnp.int32, (width, width), 1).astype(jnp.float32)
  other = lax.broadcasted_iota(jnp.int32, (width, width), 0).astype(jnp.float32)

  def product(rows, mask):
    return dot(rows, mask.astype(jnp.float32))

  # Places from 1 on, so that 0 says that a token goes nowhere.
  place = jnp.where(keep > 0, product(_tile(keep), other < token)[:1] + 1.0, 0.0)
  into = product(_tile(place), other == destination)[:1] - 1.0
  row = lax.broadcasted_iota(jnp.int32, (8, width), 0)
  of_each = jnp.where(row == 0, sizes, keep * position)
  after = product(of_each, column(into) == token)
  return into, after[:1], after[1:2]


def _tile(row):
  """(1, width) -> (8, width), as products have rows."""
  return jnp.broadcast_to(row, (8, row.shape[1]))
