"""Where the tokens of a packed batch are, and the ladders of static sizes around them."""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layout:
  """Which row of the buffer is which token; rows from `count.sum()` on are not in use.

  Attributes:
    image: (rows,) the image of every row.
    position: (rows,) the row's place in its image, 0 for the class token.
    start: (b,) the first row of every image, its class token.
    count: (b,) the rows of every image.
  """

  image: jax.Array
  position: jax.Array
  start: jax.Array
  count: jax.Array


def rows_of_images(layout, width, rows):
  """(b, width) the rows of every image; past its count, rows of others or the last one."""
  return jnp.minimum(layout.start[:, None] + jnp.arange(width), rows - 1)


def rung(size, ladder):
  """Index of the smallest rung that holds `size`, a scalar array."""
  return jnp.searchsorted(jnp.array(ladder), size)


def ladder(top, rungs):
  """Evenly spaced sizes up to `top`, which is the last."""
  return sorted({-(-top * (i + 1) // rungs) for i in range(rungs)})


def pack(keep, layout):
  """The layout after dropping rows; also, for every new row, the row that it was."""
  source = kept_first(keep)
  count = jnp.zeros_like(layout.count).at[layout.image].add(keep)
  start = jnp.cumsum(count) - count
  return source, Layout(layout.image[source], layout.position[source], start, count)


def mask_of(token, used, tokens):
  """(rows,) token of every row -> (tokens,) float32, 1 for those of the first `used` rows."""
  token = jnp.where(jnp.arange(len(token)) < used, token, tokens)
  return jnp.zeros(tokens, jnp.float32).at[token].set(1, mode="drop")


def kept_first(keep):
  """(rows,) keep -> (rows,) indices of the kept rows, in order; 0 after them."""
  rows = len(keep)
  destination = jnp.where(keep, jnp.cumsum(keep) - 1, rows)
  return jnp.zeros(rows, jnp.int32).at[destination].set(jnp.arange(rows), mode="drop")


def lengthen(x, rows):
  """Pads the first axis to `rows`: the branches of a switch must agree in shape."""
  return jnp.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))
