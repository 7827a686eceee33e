"""Rotary positions (RoPE, arXiv:2104.09864): what rotates queries and keys by a patch's place.

The channels of a head are pairs, and each pair is rotated by an angle: the first half of them by
multiples of the patch's row, the second half by multiples of its column. An attention logit then
depends on the difference of two places. Tokens before the patches are not rotated.

| kind | place of a patch | angles | pairs |
|---|---|---|---|
| `dinov3` | its centre, the image's edges at -1 and 1 | 2π · place · base^(-j/m) | (j, j + 2m) |
| `eva02` | its row and column, from 0 | place · base^(-j/m) | (2j, 2j + 1) |

Of a head of c channels, m = c/4. For `eva02`, `rope_grid` scales places so that any grid covers the
rows and columns of that grid, the one of pretraining. See arXiv:2508.10104 and arXiv:2303.11331.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np

# {kind: base as published}; `fields.CHOICES` has the kinds, too.
BASES = {"dinov3": 100.0, "eva02": 10000.0}


@dataclasses.dataclass(frozen=True)
class Rope:
  """The rotary positions of a network; see the module's description.

  Attributes:
    kind: a name of `BASES`.
    base: base of the frequencies.
    reference: (rows, columns) of the grid of pretraining; () for the network's own grid.
    grid: (rows, columns) of patches.
    prefix_tokens: number of tokens before the patches.
    channels: number of channels of a head, a multiple of 4.
  """

  kind: str
  base: float
  reference: tuple[int, ...]
  grid: tuple[int, int]
  prefix_tokens: int
  channels: int

  @classmethod
  def of(cls, arch):
    """The `Rope` of an `Architecture`; None if it has none."""
    if not arch.rope:
      return None
    channels = arch.width // arch.heads
    return cls(arch.rope, arch.rope_base, arch.rope_grid, arch.grid, arch.prefix_tokens, channels)

  def places(self):
    """(prefix + n, 2) float64 place of every token: row and column, 0 for tokens of the prefix."""
    sides = []
    for side, reference in zip(self.grid, self.reference or self.grid, strict=True):
      index = np.arange(side)
      scaled = index * (reference / side)
      sides.append((2 * index + 1) / side - 1 if self.kind == "dinov3" else scaled)
    patches = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.concatenate([np.zeros((self.prefix_tokens, 2)), patches])

  def angles(self, places):
    """(..., 2) places -> (..., c/2) angles, for NumPy and JAX."""
    count = self.channels // 4
    frequencies = self.base ** (-np.arange(count) / count)
    if self.kind == "dinov3":
      frequencies = 2 * math.pi * frequencies
    angles = places[..., None] * frequencies.astype(places.dtype)  # (..., 2, c/4)
    return angles.reshape(*places.shape[:-1], 2 * count)

  @functools.lru_cache(8)  # noqa: B019 - of a frozen value, and asked for by every block
  def table(self):
    """The cosines and sines of every token's angles, two (prefix + n, c/2) float32 arrays."""
    angles = self.angles(self.places())
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

  def rotate(self, x, cosines, sines):
    """Rotates queries or keys, in float32.

    Args:
      x: (..., n, h, c) queries or keys.
      cosines: (..., n, c/2) of the angles.
      sines: (..., n, c/2) of the angles.

    Returns:
      (..., n, h, c) of the type of x.
    """
    cosines, sines = cosines[..., None, :], sines[..., None, :]  # the same for all heads
    wide = x.astype(jnp.float32)
    if self.kind == "dinov3":
      first, second = jnp.split(wide, 2, axis=-1)
    else:
      pairs = wide.reshape(*wide.shape[:-1], -1, 2)
      first, second = pairs[..., 0], pairs[..., 1]
    rotated = first * cosines - second * sines, second * cosines + first * sines
    if self.kind == "dinov3":
      return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
    return jnp.stack(rotated, axis=-1).reshape(x.shape).astype(x.dtype)
