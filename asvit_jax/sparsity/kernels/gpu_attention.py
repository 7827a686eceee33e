"""Attention over the ragged rows of many images as one kernel for GPUs, in Pallas Triton.

A program of the grid computes one tile of one head's queries of one image. It goes through the keys
of that image alone, a tile at a time, with an online softmax (arXiv:2205.14135), so that no logits
leave the chip; what there is to compute follows from the numbers of tokens, which the kernel reads.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

# Queries of a program, and keys that it takes at a time, by the compute type. 64 are the rows of a
# Hopper product. By the compiler's count of registers, 64 of true float32 would not stay in them
# (for an H100, 13 kB of a thread's values would go to memory and back), 32 do. Not tuned on a GPU.
TILES = {"bfloat16": 64, "float32": 32}
# Channels of the widest head: a thread then takes all of its 255 registers on an A100.
WIDEST = 128
_LEAST = 16  # channels of the narrowest product of Triton


@functools.partial(jax.jit, static_argnames=("heads", "most", "tile", "interpret"))
def ragged_attention(qkv, start, count, bias, *, heads, most, tile=None, interpret=False):
  """Softmax attention of every image's tokens to each other.

  Products are those of the compute type; of float32 at the precision that JAX is set to, see
  `core.devices.precision`.

  Args:
    qkv: (length, 3 · h · c) queries, keys and values of all images, one image after another.
      Rows that belong to no token may have any value.
    start: (b,) int32, the first row of each image.
    count: (b,) int32, the number of its tokens. Those beyond the last row are left out.
    bias: (b, most) float32, added to the logits of every key; None for none.
    heads: h; their channels are at most `WIDEST`.
    most: the largest number of tokens that an image can have.
    tile: rows of a tile, a power of two, at least 16; by default as `TILES` says.
    interpret: whether to run without a GPU, slowly.

  Returns:
    (length, h · c) context of the tokens; other rows have any value.
  """
  length, width = qkv.shape
  channels = width // 3 // heads
  tile = tile or TILES[qkv.dtype.name]
  count = jnp.clip(length - start, 0, count)
  kernel = functools.partial(_attend, heads=heads, channels=channels, tile=tile)
  biases = () if bias is None else (bias,)
  return pl.pallas_call(
    kernel,
    # Tiles of the same keys run one after another.
    grid=(pl.cdiv(most, tile), heads, len(start)),
    out_shape=jax.ShapeDtypeStruct((length, heads * channels), qkv.dtype),
    compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
    name="ragged_attention",
  )(start, count, qkv, *biases)


def _attend(start, count, qkv, *rest, heads, channels, tile):
  """The kernel; `rest` is the bias, if there is one, and the output."""
  *biases, out = rest
  first, head, image = pl.program_id(0) * tile, pl.program_id(1), pl.program_id(2)
  begin, tokens = start[image], count[image]
  wide = max(_LEAST, pl.next_power_of_2(channels))
  column = jnp.arange(wide)[None, :]

  def place(part, row):
    """The tile of a part of this head's queries, keys and values, and which of it there is."""
    at = pl.ds(begin + row, tile), pl.ds((part * heads + head) * channels, wide)
    there = (row + jnp.arange(tile) < tokens)[:, None]
    return at, there if wide == channels else there & (column < channels)

  def read(part, row):
    at, there = place(part, row)
    return triton.load(qkv.at[at], mask=there, other=0.0)

  @pl.when(first < tokens)
  def _():
    q = read(0, first) * channels**-0.5

    def add(index, sums):
      """Adds a tile of keys to the largest logit, the mass and the context of every query."""
      peak, mass, context = sums
      row = index * tile
      logits = jnp.dot(q, read(1, row).T, preferred_element_type=jnp.float32)
      there = row + jnp.arange(tile) < tokens
      for bias in biases:
        logits += triton.load(bias.at[image, pl.ds(row, tile)], mask=there, other=0.0)[None, :]
      logits = jnp.where(there[None, :], logits, -jnp.inf)
      higher = jnp.maximum(peak, logits.max(axis=1))
      share = jnp.exp(logits - higher[:, None])
      before = jnp.exp(peak - higher)
      mixed = jnp.dot(share.astype(out.dtype), read(2, row), preferred_element_type=jnp.float32)
      return higher, mass * before + share.sum(axis=1), context * before[:, None] + mixed

    nothing = (
      jnp.full(tile, -jnp.inf, jnp.float32),
      jnp.zeros(tile, jnp.float32),
      jnp.zeros((tile, wide), jnp.float32),
    )
    _, mass, context = jax.lax.fori_loop(0, pl.cdiv(tokens, tile), add, nothing)
    at, there = place(0, first)
    triton.store(out.at[at], (context / mass[:, None]).astype(out.dtype), mask=there)
