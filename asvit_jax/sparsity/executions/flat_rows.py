"""Flat rows: their layout, and the backend that defines what runs on them.

Each image's number of tokens is rounded up to a multiple of `ALIGN` rows:

    image 0   c a b        rows    c a b . c d . . c e f g h . . .      c a class token
    image 1   c d          start   0       4       8                    . padding
    image 2   c e f g h    count   3       2       5

Norms, projections and MLPs act on rows, whatever image they belong to. Attention, scores and
reductions act on windows: (b, n, …), the rows of each image from its start on. A backend says how
rows become windows and back, and how a block runs on rows; `Reference`, in plain XLA, defines it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Rows between two starts: a tile of rows in the memory of a TPU.
ALIGN = 8


class Layout(NamedTuple):
  """Which rows belong to which image, and what is known of their tokens.

  Attributes:
    start: (b,) int32, the first row of each image: where the rows of the image before it end, each
      number of tokens being `aligned`.
    count: (b,) int32, the number of its tokens.
    sizes: (b, n) float32, see `Stage`, of the first `count` tokens; None if nothing is merged.
    position: (b, n) int32, the original index of each token in its image.
    places: (b, n, 2), see `Stage`.
  """

  start: jax.Array
  count: jax.Array
  sizes: jax.Array | None
  position: jax.Array
  places: jax.Array | None

  @property
  def width(self):
    """n, the rows of a window."""
    return self.position.shape[1]

  @property
  def present(self):
    """(b, n) bool, the tokens that there are."""
    return jnp.arange(self.width) < self.count[:, None]

  @property
  def total(self):
    """() int32, the number of rows up to the end of the last image."""
    # Equals start[-1] + aligned(count[-1]), in fewer operations.
    return aligned(self.count).sum().astype(jnp.int32)


class Moving(NamedTuple):
  """Rows before a stage, and where they go; in place of the tokens, if a backend `compacts`.

  Attributes:
    x: (length, d) rows.
    layout: their `Layout`.
    into: (b, n) int32, the place in its image, after the stage, of the token that each one is then
      part of, itself if it is kept; -1 for none.
  """

  x: jax.Array
  layout: Layout
  into: jax.Array


class Merges(NamedTuple):
  """What a stage decides about the tokens before it, in windows; of backends that `merges`.

  Attributes:
    destination: (b, n) int32, see `Pruning.destinations`.
    into: (b, n) int32, see `Moving`.
    sizes: (b, n) float32, the sizes of the tokens after the stage, in their new places.
    position: (b, n) int32, their original indices.
  """

  destination: jax.Array
  into: jax.Array
  sizes: jax.Array
  position: jax.Array


class Reference:
  """The backend in plain XLA, for every network, platform and compute type.

  A backend is an object with these methods. Rows that belong to no token may have any value, even
  one that is not finite, wherever a backend takes or returns rows.

  Attributes:
    starts: whether the blocks before the first stage run on rows, too, which have all tokens.
    compacts: whether it has `compacted`, for reductions that say where tokens go.
  """

  starts = False
  compacts = False

  def rows(self, windows, layout, length):
    """(b, n, d) windows -> (length, d) rows; `length` is static, at least `layout.total`."""
    row = jnp.arange(length)
    image = (row[:, None] >= layout.start[1:]).sum(axis=1)
    offset = jnp.minimum(row - layout.start[image], windows.shape[1] - 1)
    return windows[image, offset]

  def embedded(self, model, images):
    """The tokens of normalised images (b, height, width, 3): (`most_rows`, d) rows."""
    windows = model.embed(images)
    b, n, d = windows.shape
    more = int(aligned(n)) - n
    return jnp.pad(windows, ((0, 0), (0, more), (0, 0))).reshape(most_rows(b, n), d)

  def windows(self, rows, layout):
    """(length, …) rows -> (b, n, …) windows, 0 beyond the tokens that there are."""
    row = jnp.minimum(layout.start[:, None] + jnp.arange(layout.width), len(rows) - 1)
    there = layout.present.reshape(*row.shape, *[1] * (rows.ndim - 1))
    return jnp.where(there, rows[row], 0)

  def attended(self, block, x, layout, pruning, scored):
    """Attention with its residual, as `Block.attended`, on rows.

    Args:
      block: a `Block`.
      x: (length, d) rows.
      layout: the `Layout`.
      pruning: the `Pruning`.
      scored: whether a stage reads the cache; a backend need not compute it otherwise.

    Returns:
      (length, d) rows, and the `AttentionCache` in windows, (b, n, …); it may be None unless
      `scored`.
    """
    del scored  # `jit` drops the cache where nothing reads it

    def attend(q, k, v):
      context, cache = attention(layout, pruning)(*(self.windows(a, layout) for a in (q, k, v)))
      return self.rows(context, layout, len(x)), cache

    return block.attended(x, attend)

  def fed_forward(self, block, x, layout):
    """The MLP with its residual, as `Block.fed_forward`: (length, d) -> (length, d)."""
    del layout
    return block.fed_forward(x)

  def read(self, block, x, layout, pruning, count):
    """The whole block for the first `count` tokens of every image: (length, d) -> (b, count, d)."""
    read = x[layout.start[:, None] + jnp.arange(count)]

    def attend(q, k, v):
      return attention(layout, pruning)(q, self.windows(k, layout), self.windows(v, layout))

    return block.rows(x, read, attend)

  def merges(self, model, index, x, layout, cache):
    """What stage `index` decides about rows, if a backend `compacts` and has a kernel for that.

    Args:
      model: a `VisionTransformer`.
      index: index of the stage.
      x: (length, d) rows.
      layout: their `Layout`.
      cache: the `AttentionCache` of the block before, in windows.

    Returns:
      `Merges`; None to decide by `in_place.tokens_above` and `Pruning.destinations`.
    """
    del model, index, x, layout, cache


reference = Reference()


def most_rows(b, n):
  """The number of rows of b images that keep all of their n tokens."""
  return b * int(aligned(n))


def aligned(count):
  """A number of tokens, rounded up to a multiple of `ALIGN`."""
  return -(-count // ALIGN) * ALIGN


def attention(layout, pruning):
  """The attention function of windows, (b, n, h, c), of which the first `count` tokens count."""
  rotation = pruning.rotation(layout.position, layout.places)
  return functools.partial(
    pruning.prefix, count=layout.count, sizes=layout.sizes, rotation=rotation
  )
