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
from asvit_jax.sparsity.kernels.tpu_copies import copy_rows, prefetch, tiled
from asvit_jax.sparsity.kernels.tpu_products import dot
from asvit_jax.sparsity.scores import merge_cost, unit


# Traced once for all stages.
@functools.partial(jax.jit, static_argnames=("exponents", "prefix", "interpret"))
def merges(x, start, count, attention, sizes, threshold, *, exponents, prefix, interpret=False):
  """Decides which tokens of every image are kept, and into which ones the others are merged.

  Args:
    x: (length, d) rows.
    start: (b,) int32, the first row of each image, a multiple of 16.
    count: (b,) int32, the number of its tokens.
    attention: (b, width) float32 attention scores of the tokens. The width is a multiple of 16.
    sizes: (b, width) float32, the size of each token, 0 if it is not there.
    threshold: () float32: a token is kept if its cost exceeds it.
    exponents: of the cost, a tuple; see `scores.MergeCost`.
    prefix: number of tokens before the patches, which are kept as they are.
    interpret: whether to interpret the kernel.

  Returns:
    (b, width) bool, whether a token is kept; (b, width) int32, the token of which each one is part,
    itself if it is kept, `width` for none; and (b, width) float32, the sizes of the kept tokens
    with what is merged into them.
  """
  (b, width), d = sizes.shape, x.shape[1]
  row = pl.BlockSpec((1, 1, width), lambda i, *_: (i, 0, 0))
  keep, destination, sizes = pl.pallas_call(
    functools.partial(_merges, images=b, exponents=exponents, prefix=prefix),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(b,),
      in_specs=[pl.BlockSpec(memory_space=pl.ANY), row, row],
      out_specs=[row, row, row],
      scratch_shapes=[pltpu.VMEM((2, width, d), x.dtype), pltpu.SemaphoreType.DMA((2,))],
    ),
    out_shape=[jax.ShapeDtypeStruct((b, 1, width), jnp.float32)] * 3,
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
    name="merges",
  )(start, count, threshold.reshape(1), x, attention[:, None], sizes[:, None])
  return keep[:, 0] > 0, destination[:, 0].astype(jnp.int32), sizes[:, 0]


def _merges(
  start,
  count,
  threshold,
  x,
  attention,
  sizes,
  keep,
  destination,
  total,
  rows,
  arrived,
  *,
  images,
  exponents,
  prefix,
):
  """The program of one image; see `merges`."""
  i = pl.program_id(0)

  def reads(i, act):
    slot = lax.rem(i, 2)
    copy_rows(x, start[i], rows.at[slot], 0, tiled(count[i]), arrived.at[slot], act)

  prefetch(i, images, reads)
  tokens = rows[lax.rem(i, 2)]
  there = lax.broadcasted_iota(jnp.int32, tokens.shape, 0) < count[i]
  tokens = unit(jnp.where(there, tokens, jnp.zeros_like(tokens)))
  keep[0], destination[0], total[0] = _decided(
    *(dot(tokens, tokens, transposed=True), attention[0], sizes[0]),
    *(count[i], threshold[0], exponents, prefix),
  )


def _decided(similarity, attention, sizes, count, threshold, exponents, prefix):
  """What is decided about one image: arrays (1, width) of float32, the results of `merges`.

  Args:
    similarity: (width, width) float32, symmetric.
    attention: (1, width), see `merges`; `sizes` likewise.
    sizes: (1, width).
    count: number of tokens.
    threshold: see `merges`; `exponents` and `prefix` likewise.
    exponents: a tuple.
    prefix: a number.
  """
  width = len(similarity)
  # Tokens are along the lanes, and the others that they are compared with along the sublanes.
  other, token = (lax.broadcasted_iota(jnp.int32, (width, width), axis) for axis in (0, 1))
  index = other.astype(jnp.float32)
  place = token[:1]

  def column(a):
    """(1, width) -> (width, 1), the same of the others; exact, as one of each sum is not 0."""
    return jnp.where(other == token, a, 0.0).sum(axis=1, keepdims=True)

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
  first = -largest(takes & (similarity >= nearest), -index, -float(width))
  destination = jnp.where(patches, first, float(width))
  destination = jnp.where(keep > 0, place.astype(jnp.float32), destination)
  merged = jnp.where(column(destination) == token.astype(jnp.float32), size, 0.0)
  return keep, destination, merged.sum(axis=0, keepdims=True)
