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
  copy_rows,
  prefetch,
  slot_of,
  switch,
  tiled,
  write_behind,
)
from asvit_jax.sparsity.kernels.tpu_products import LANES, dot


def widths_to(width):
  """The numbers of kept tokens that programs are compiled for, in a tuple."""
  return (*range(LANES // 2, width, LANES // 2), width)


# Traced once for all stages.
@functools.partial(jax.jit, static_argnames=("widths", "interpret"))
def compact(x, before, after, place, destination=None, sizes=None, *, widths=None, interpret=False):
  """Moves the kept tokens of every image to its new rows, with what is merged into them.

  Args:
    x: (length, d) rows.
    before: (b,) int32 first row and (b,) int32 number of tokens of each image, in `x`.
    after: the same after the stage, in the result.
    place: (b, width) int32, the new place of each token in its image, -1 for removed ones. The
      width is a multiple of 8, and at most 256 in bfloat16.
    destination: (b, width) int32, the token of which each one is part, itself if it is kept, and
      any other number for none; None if nothing is merged.
    sizes: (b, width) float32, the size of each token, 0 if it is not there; None if nothing is
      merged.
    widths: the numbers of tokens after the stage that programs are compiled for, a tuple;
      `widths_to(width)` by default. The last one holds all counts.
    interpret: whether to interpret the kernel.

  Returns:
    (length, d) rows; means, weighted by size, if tokens are merged.
  """
  (b, width), d = place.shape, x.shape[1]
  given = [place] if destination is None else [place, destination, sizes]
  row = pl.BlockSpec((1, 1, width), lambda i, *_: (i, 0, 0))
  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  return pl.pallas_call(
    functools.partial(_compact, images=b, widths=widths or widths_to(width), interpret=interpret),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      grid=(b,),
      in_specs=[anywhere, *(row for _ in given)],
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
    compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
  )(*before, *after, x, *(a[:, None] for a in given))


def _compact(start, count, new_start, new_count, x, place, *rest, images, widths, interpret):
  *merged, out, rows, moved, arrived, left = rest
  i = pl.program_id(0)

  def reads(i, act):
    slot = slot_of(i)
    copy_rows(x, start[i], rows.at[slot], 0, tiled(count[i]), arrived.at[slot], act, interpret)

  def writes(i, act):
    slot = slot_of(i)
    copy_rows(
      moved.at[slot], 0, out, new_start[i], tiled(new_count[i]), left.at[slot], act, interpret
    )

  prefetch(i, images, reads)

  def run(kept):
    slot = slot_of(i)
    of_image = rows[slot], count[i], place[0], *(a[0] for a in merged)
    moved[slot, :kept] = _moved(kept, *of_image)

  write_behind(i, images, writes, lambda: switch(tiled(new_count[i]), widths, run))


def _moved(kept, x, count, place, destination=None, sizes=None):
  """(width, d) tokens -> (kept, d) tokens after the stage; the others are (1, width)."""
  width = len(x)
  row = lax.broadcasted_iota(jnp.int32, (kept, width), 0)
  exact, dtype = x.dtype == jnp.float32, x.dtype
  there = lax.broadcasted_iota(jnp.int32, x.shape, 0) < count
  tokens = jnp.where(there, x, jnp.zeros_like(x))
  moves = (row == place).astype(jnp.float32)  # (to, from)
  if destination is None:
    return dot(moves.astype(dtype), tokens, exact=exact).astype(x.dtype)
  row = lax.broadcasted_iota(jnp.int32, (width, width), 0)
  part_of = (row == destination).astype(jnp.float32)  # (kept, from)
  weights = dot(moves.astype(jnp.bfloat16), part_of.astype(jnp.bfloat16)) * sizes
  weights = weights.astype(dtype)
  total = dot(weights, jnp.ones((width, LANES), dtype), exact=exact)[:, :1]
  mass = dot(weights, tokens, exact=exact)
  return (mass / jnp.where(total > 0, total, 1.0)).astype(x.dtype)
