"""Removing and merging tokens on a TPU: from the rows before a stage to the rows after it.

For each image the tokens after the stage are a product of a small matrix and its rows. A matrix of
zeros and ones, or of sizes up to 256, is exact in bfloat16, and so is the product, which sums in
float32.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

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
  write_behind,
  writer,
)
from asvit_jax.sparsity.kernels.tpu_products import LANES, dot


def widths_to(width):
  """The numbers of kept tokens that programs are compiled for, in a tuple."""
  return (*range(LANES // 2, width, LANES // 2), width)


# Traced once for all stages.
@functools.partial(jax.jit, static_argnames=("widths", "interpret"))
def compact(x, before, after, into, sizes=None, *, widths=None, interpret=False):
  """Moves the kept tokens of every image to its new rows, with what is merged into them.

  Args:
    x: (length, d) rows.
    before: (b,) int32 first row and (b,) int32 number of tokens of each image, in `x`.
    after: the same after the stage, in the result.
    into: (b, width) int32, the place in its image, after the stage, of the token that each one is
      then part of, itself if it is kept; -1 for none. The width is a multiple of 8, and at most 256
      in bfloat16.
    sizes: (b, width) float32, the size of each token, 0 if it is not there; None if nothing is
      merged.
    widths: the numbers of tokens after the stage that programs are compiled for, a tuple;
      `widths_to(width)` by default. The last one holds all counts.
    interpret: whether to interpret the kernel.

  Returns:
    (length, d) rows; means, weighted by size, if tokens are merged.
  """
  (b, width), d = into.shape, x.shape[1]
  given, images = [into] if sizes is None else [into, sizes], group_of(b)
  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  return pl.pallas_call(
    functools.partial(
      _compact,
      images=images,
      all_images=b,
      widths=widths or widths_to(width),
      interpret=interpret,
    ),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      grid=(pl.cdiv(b, images), images),
      in_specs=[anywhere, *(by_group(images, width) for _ in given)],
      out_specs=anywhere,
      scratch_shapes=[
        pltpu.VMEM((2, width, d), x.dtype),
        pltpu.VMEM((2, width, d), x.dtype),
        pltpu.SemaphoreType.DMA((2,)),
        pltpu.SemaphoreType.DMA((2,)),
      ],
    ),
    out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
  )(*before, *after, x, *given)


def _compact(
  start, count, new_start, new_count, x, into, *rest, images, all_images, widths, interpret
):
  """The program of one image; see `compact`."""
  *sizes, out, rows, moved, arrived, left = rest
  i, begin, here = image_of_group(images, all_images)
  reads = reader(x, start, count, begin, rows, arrived, interpret)
  writes = writer(moved, out, new_start, new_count, begin, left, interpret)

  def run(kept):
    slot = slot_of(i)
    of_image = rows[slot], count[begin + i], *(a[row_of(i)] for a in (into, *sizes))
    moved[slot, :kept] = _moved(kept, *of_image)

  @pl.when(i < here)
  def _():
    prefetch(i, here, reads)
    write_behind(i, here, writes, lambda: switch(tiled(new_count[begin + i]), widths, run))


def _moved(kept, x, count, into, sizes=None):
  """(width, d) tokens -> (kept, d) tokens after the stage; the others are (1, width)."""
  width, dtype, exact = len(x), x.dtype, x.dtype == jnp.float32
  there = lax.broadcasted_iota(jnp.int32, x.shape, 0) < count
  tokens = jnp.where(there, x, jnp.zeros_like(x))
  moves = lax.broadcasted_iota(jnp.int32, (kept, width), 0) == into  # (to, from)
  weights = jnp.where(moves, 1.0 if sizes is None else sizes, 0.0).astype(dtype)
  mass = dot(weights, tokens, exact=exact)
  if sizes is not None:
    total = dot(weights, jnp.ones((width, LANES), dtype), exact=exact)[:, :1]
    mass = mass / jnp.where(total > 0, total, 1.0)
  return mass.astype(dtype)
