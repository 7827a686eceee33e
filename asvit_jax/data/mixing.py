"""Augmentation of whole batches on the device: random erasing, mixup and cutmix.

All shapes are static, so everything here runs under jit, vmap and pmap; what is switched off leaves
no trace in the program. Erasing is timm's in pixel mode. There are two ways to mix:

- "pairs": neighbours in the batch are mixed with each other, and every pair has a draw of its own,
  which follows from its place in the global batch: the number of devices and hosts changes nothing.
- "batch": DeiT's (arXiv:2012.12877), by timm's `Mixup` in its mode of that name. A device draws
  once for all of its images, mixup or cutmix and one λ, and mixes each with its mirror.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

ERASED_AREA = (0.02, 1 / 3)  # share of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height ÷ width
ERASING_DRAWS = 10  # of rectangles, until one fits


@dataclasses.dataclass(frozen=True)
class Mixing:
  """Erases images, then mixes them; the fields are those of the section `mix` of the config."""

  mixup: float = 0.0
  cutmix: float = 0.0
  switch: float = 0.5
  erasing: float = 0.0
  mode: str = "pairs"

  def __call__(self, key, images, targets, first=0):
    """Augments a batch, or the part of a global batch that starts at image `first`.

    Args:
      key: a PRNG key, of the global batch.
      images: (b, height, width, channels) floating, normalised; all that mode "batch" draws once
        for. b is even where pairs are mixed.
      targets: (b, classes) floating.
      first: index of the first image in the global batch; even where pairs are mixed.

    Returns:
      Images and targets of the same shapes and dtypes.
    """
    erase_key, mix_key = jax.random.split(key)
    if self.erasing:
      keys = _keys(erase_key, first + jnp.arange(len(images)))
      images = jax.vmap(lambda k, x: erase(k, x[None], self.erasing)[0])(keys, images)
    if not self.mixes:
      return images, targets
    if self.mode == "batch":
      return self._mix(jax.random.fold_in(mix_key, first), images, targets)
    pairs = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), (images, targets))
    keys = _keys(mix_key, first // 2 + jnp.arange(len(images) // 2))
    mixed = jax.vmap(self._mix)(keys, *pairs)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mixed)

  @property
  def mixes(self):
    """Whether images are mixed."""
    return bool(self.mixup or self.cutmix)

  def _mix(self, key, images, targets):
    return mix(key, images, targets, self.mixup, self.cutmix, self.switch)


def _keys(key, indices):
  return jax.vmap(functools.partial(jax.random.fold_in, key))(indices)


def mix(key, images, targets, mixup_alpha, cutmix_alpha, switch):
  """Mixes every image with its mirror among those given: image i with image b - 1 - i.

  One draw holds for all; `Mixing` gives two images at a time, or all of a device. Mixup
  (arXiv:1710.09412) adds the pair, weighted λ and 1 - λ; cutmix (arXiv:1905.04899) pastes a box of
  the other image, of area 1 - λ before the image's border clips it, around a centre that is
  anywhere in the image. λ is Beta(α, α) distributed.

  Args:
    key: a PRNG key.
    images: (b, height, width, channels) floating.
    targets: (b, classes) floating.
    mixup_alpha: α of mixup; 0 for no mixup.
    cutmix_alpha: α of cutmix; 0 for no cutmix.
    switch: probability of cutmix where both are on, else not read.

  Returns:
    Images and targets of the same shapes and dtypes; targets mixed with the share of pixels that
    stayed.  The arguments themselves where both are off.
  """
  if not mixup_alpha and not cutmix_alpha:
    return images, targets
  switch_key, mixup_key, cutmix_key = jax.random.split(key, 3)
  if not cutmix_alpha:
    weights, share = _mixup(mixup_key, mixup_alpha)
  elif not mixup_alpha:
    weights, share = _cutmix(cutmix_key, cutmix_alpha, images.shape[1:3])
  else:
    cut = jax.random.bernoulli(switch_key, jnp.float32(switch))
    weights, share = jax.tree.map(
      functools.partial(jnp.where, cut),
      _cutmix(cutmix_key, cutmix_alpha, images.shape[1:3]),
      _mixup(mixup_key, mixup_alpha),
    )
  return _interpolate(images, weights[..., None]), _interpolate(targets, share)


def _mixup(key, alpha):
  """() weight of the first image at every pixel, and () of its target."""
  weight = jax.random.beta(key, alpha, alpha, (), jnp.float32)
  return weight, weight


def _cutmix(key, alpha, size):
  """(height, width) weights of the first image, 0 or 1, and () of its target."""
  (height, width), (area_key, center_key) = size, jax.random.split(key)
  area = 1 - jax.random.beta(area_key, alpha, alpha, (), jnp.float32)
  side, size = jnp.sqrt(area), jnp.asarray(size, jnp.int32)  # of the box, relative; of the image
  half = (size * side).astype(jnp.int32) // 2
  center = jax.random.randint(center_key, (2,), 0, size, jnp.int32)
  weights = 1 - _box(center - half, center + half, height, width).astype(jnp.float32)
  return weights, weights.mean()


def _interpolate(x, weight):
  weight = weight.astype(x.dtype)
  return weight * x + (1 - weight) * x[::-1]


def erase(key, images, probability):
  """Replaces a rectangle of some images by noise (arXiv:1708.04896).

  Area and aspect are those of the first of ten draws that is smaller than the image on both sides;
  where none is, the image stays whole. The place is uniform among those inside the image.

  Args:
    key: a PRNG key.
    images: (b, height, width, channels) floating, normalised: the noise is N(0, 1), drawn for every
      pixel and channel.
    probability: of an image to be chosen; 0 returns `images` itself.

  Returns:
    Images of the same shape and dtype.
  """
  if not probability:
    return images
  count, height, width, _ = images.shape
  chosen_key, area_key, aspect_key, corner_key, noise_key = jax.random.split(key, 5)

  draws = (count, ERASING_DRAWS)
  low, high = ERASED_AREA
  area = height * width * jax.random.uniform(area_key, draws, jnp.float32, minval=low, maxval=high)
  low, high = map(math.log, ERASED_ASPECT)
  aspect = jnp.exp(jax.random.uniform(aspect_key, draws, jnp.float32, minval=low, maxval=high))
  sides = jnp.sqrt(jnp.stack([area * aspect, area / aspect], axis=-1)).round().astype(jnp.int32)
  size = jnp.asarray([height, width], jnp.int32)
  fits = (sides < size).all(axis=-1)

  sides = sides[jnp.arange(count), fits.argmax(axis=1)]  # the first that fits
  corners = jax.random.randint(corner_key, (count, 2), 0, size - sides + 1, jnp.int32)
  chosen = jax.random.bernoulli(chosen_key, jnp.float32(probability), (count,)) & fits.any(axis=1)
  inside = jax.vmap(lambda low, high: _box(low, high, height, width))(corners, corners + sides)
  erased = (chosen[:, None, None] & inside)[..., None]
  return jnp.where(erased, jax.random.normal(noise_key, images.shape, images.dtype), images)


def _box(low, high, height, width):
  """(height, width) bool: the pixels from `low` up to `high`, (2,) int (y, x) each."""
  y, x = jnp.arange(height)[:, None], jnp.arange(width)
  return (y >= low[0]) & (y < high[0]) & (x >= low[1]) & (x < high[1])
