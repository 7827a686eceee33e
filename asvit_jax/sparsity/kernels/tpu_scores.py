"""The attention score of tokens on a TPU: class attention, weighted by the norms of heads.

It is `scores.ClassAttention.gather` of the attention of a class token, in one kernel for each image
that reads the keys and the context of its tokens once.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from asvit_jax.sparsity.kernels.tpu_attention import HEAD
from asvit_jax.sparsity.kernels.tpu_copies import TILE, copy_rows, prefetch, slot_of, tiled
from asvit_jax.sparsity.kernels.tpu_products import LANES, dot, reciprocal, summed


# Traced once for all stages.
@functools.partial(jax.jit, static_argnames=("heads", "interpret"))
def class_scores(qkv, context, bias, start, count, *, heads, interpret=False):
  """The attention score of every token.

  Args:
    qkv: (length, 3 · p · 128) rows, see `tpu_attention.attend`.
    context: (length, p · 128) rows, its result.
    bias: (b, width), as for `tpu_attention.attend`.
    start: (b,) int32.
    count: (b,) int32.
    heads: number of heads.
    interpret: whether to interpret the kernel.

  Returns:
    (b, width) float32, 0 for tokens that are not there.
  """
  (b, width), channels = bias.shape, context.shape[1]
  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  row = pl.BlockSpec((1, 1, width), lambda i, *_: (i, 0, 0))
  scores = pl.pallas_call(
    functools.partial(_class_scores, images=b, heads=heads, interpret=interpret),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(b,),
      in_specs=[row, anywhere, anywhere],
      out_specs=row,
      scratch_shapes=[
        pltpu.VMEM((2, TILE, channels), qkv.dtype),
        pltpu.VMEM((2, width, channels), qkv.dtype),
        pltpu.VMEM((2, width, channels), qkv.dtype),
        pltpu.SemaphoreType.DMA((2,)),
      ],
    ),
    out_shape=jax.ShapeDtypeStruct((b, 1, width), jnp.float32),
    interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
  )(start, count, bias[:, None], qkv, context)
  return scores[:, 0]


def _class_scores(
  start, count, bias, qkv, context, out, q, k, mixed, arrived, *, images, heads, interpret
):
  i, channels = pl.program_id(0), k.shape[2]

  def reads(i, act):
    slot, first, rows = slot_of(i), start[i], tiled(count[i])
    keys, queries = qkv.at[:, channels : 2 * channels], qkv.at[:, :channels]
    of_class = queries.at[pl.ds(pl.multiple_of(first, TILE), TILE)]
    act(pltpu.make_async_copy(of_class, q.at[slot], arrived.at[slot]))
    for source, target in ((keys, k), (context, mixed)):
      copy_rows(source, first, target.at[slot], 0, rows, arrived.at[slot], act, interpret)

  prefetch(i, images, reads)
  slot = slot_of(i)
  there = lax.broadcasted_iota(jnp.int32, out.shape[1:], 1) < count[i]
  # A row of its own for each head, so that all heads are one softmax; those of no head count 0.
  head, lane = (lax.broadcasted_iota(jnp.int32, (tiled(heads), LANES), axis) for axis in (0, 1))
  logits, squares = 0.0, 0.0
  for pair in range(channels // LANES):
    at = slice(pair * LANES, (pair + 1) * LANES)
    own = jnp.where(head == 2 * pair + lax.div(lane, HEAD), 1.0, 0.0)
    query = (q[slot][:1, at].astype(jnp.float32) * HEAD**-0.5 * own).astype(k.dtype)
    logits += dot(query, k[slot][:, at], transposed=True)
    squares += summed(own, jnp.square(mixed[slot][:, at].astype(jnp.float32)), k.dtype)
  logits = jnp.where(there, logits + bias[0], -jnp.inf)
  mass = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
  attention = mass * reciprocal(mass.sum(axis=-1, keepdims=True))
  norms = jnp.sqrt(squares)
  weighted = (norms * attention).sum(axis=0, keepdims=True)
  scores = weighted / (norms.sum(axis=0, keepdims=True) + 1e-8)
  out[0] = jnp.where(there, scores, 0.0)
