"""Checks by value whether floats can be normalised pixels.

Floats in another scale, such as 0 to 255 or 0 to 1, run like any others and give meaningless
predictions. Impossible values are refused: values that are not finite, far outside the range of
pixels, or exactly on the grid of 8 bits in another common scale. Implausible values give one
warning of each kind per process: no value below zero, where black is; many values beyond black and
white, as of a wider scale in a narrower one; a batch that ends at -1 and 1 where black and white
are at about -2 and 2.
"""

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log_once
from asvit_jax.core.promotion import usual
from asvit_jax.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# (mean, std) of pixels in [0, 1], and the name of the scale.
_SCALES = (
  ((0.0,) * 3, (1 / 255,) * 3, "pixels of 0 to 255"),
  ((0.0,) * 3, (1.0,) * 3, "pixels scaled to 0 to 1"),
  ((0.5,) * 3, (0.5,) * 3, "pixels scaled to -1 to 1"),
  (IMAGENET_MEAN, IMAGENET_STD, "pixels scaled by ImageNet's mean and std"),
)
# How far rounding moves pixels from integers in 0 to 255; bfloat16 is too coarse to tell.
_ROUNDING = {"float64": 0.01, "float32": 0.01, "float16": 0.15}
_FEW = 8  # fewer distinct values may be synthetic images, and fit any scale
# Overshoot beyond black and white, as a share of the range between: resampling stays below it.
# Noise, as in erased patches, exceeds it, but only in a small share (`_MUCH`) of the pixels.
_OVERSHOOT, _MUCH = 0.3, 0.05
_ENDS = (0.95, 1.02)  # the extreme values of resized photographs in -1 to 1
_SAMPLED = (4, 16, 16)  # at most this many images, rows and columns, evenly spaced


def check(images, preprocessing):
  """Raises InputError for floats that cannot be pixels normalised by a `Preprocessing`.

  Args:
    images: (b, h, w, 3) floats, a NumPy array or a concrete JAX array.
    preprocessing: the `Preprocessing`.
  """
  if isinstance(images, jax.Array) and not images.is_fully_addressable:
    return  # checking would need the other hosts, too
  low, high, finite, sample = looked_at(images)
  if not finite:
    raise InputError(
      "images have values that are not finite (NaN or infinite): remove these images"
    )
  low, high = float(low), float(high)
  mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
  black, white = float((-mean / std).min()), float(((1 - mean) / std).max())
  said = f"images are floats from {low:.4g} to {high:.4g}"
  wanted = (
    f"floats are taken as normalised, here about {black:.3g} to {white:.3g}; hand in pixels as "
    "uint8, or network.preprocessing.normalize(pixels)"
  )
  sample = np.asarray(sample, np.float64)
  scale = _other_scale(sample, str(images.dtype), mean, std)
  if scale is not None:
    raise InputError(f"{said}, which are {scale}: {wanted}")
  if max(-low, high) > max(10, 4 * max(abs(black), abs(white))):
    raise InputError(f"{said}, far outside the range of normalised pixels: {wanted}")
  beyond = _OVERSHOOT * (white - black)
  outside = (sample < black - beyond) | (sample > white + beyond)
  if outside.mean() > _MUCH:
    _warn("beyond", f"{said}, {outside.mean():.0%} of them far beyond black and white: {wanted}")
  ends = _ENDS[0] <= -low <= _ENDS[1] and _ENDS[0] <= high <= _ENDS[1]
  if ends and len(images) > 1 and black < -1.5 and white > 1.5:
    _warn("ends", f"{said}, as if they were scaled to -1 to 1: {wanted}")
  if black > -0.5 or low < 0 or low == high:
    return
  if high > 1.5 * white or (white > 1.5 and low < 0.02 and 0.98 < high <= 1):
    raise InputError(f"{said}, none of them below zero, where dark pixels are: {wanted}")
  _warn("bright", f"{said}, none of them below zero, where dark pixels are: {wanted}")


def _warn(kind, message):
  log_once(f"scaling, {kind}", f"WARNING: {message}")


def _other_scale(sample, kind, mean, std):
  """The name of another common scale in which the values are 8-bit pixels, or None."""
  rounding = _ROUNDING.get(kind)
  if rounding is None or len(np.unique(sample)) < _FEW or _on_grid(sample, mean, std, rounding):
    return None
  for their_mean, their_std, name in _SCALES:
    if _on_grid(sample, np.array(their_mean), np.array(their_std), rounding):
      return name
  return None


def _on_grid(sample, mean, std, rounding):
  """Whether all values are integer pixels, 0 to 255, after undoing a mean and a std."""
  pixels = 255 * (sample * std + mean)
  near = np.abs(pixels - pixels.round()) <= rounding
  return bool(near.all() and (pixels > -1).all() and (pixels < 256).all())


def _sampled(images):
  steps = (max(1, -(-n // most)) for n, most in zip(images.shape, _SAMPLED, strict=False))
  return images[tuple(slice(None, None, step) for step in steps)]


def looked_at(images, on_device=None):
  """Minimum, maximum, whether all values are finite, and a sample of the values, on the host.

  Args:
    images: see `check`.
    on_device: whether JAX computes them; by default if the images are on an accelerator. On a CPU,
      NumPy reads JAX's memory directly and takes a third of the time.
  """
  if on_device is None:
    devices = images.devices() if isinstance(images, jax.Array) else ()
    on_device = any(device.platform != "cpu" for device in devices)
  if on_device:
    with jax.ensure_compile_time_eval():
      return jax.device_get(_looked_at(images))
  images = np.asarray(images)
  low, high = images.min(), images.max()
  # NaN propagates to both.
  return low, high, np.isfinite(low) and np.isfinite(high), _sampled(images)


@jax.jit
@usual
def _looked_at(images):
  finite = jnp.isfinite(images)
  known = jnp.where(finite, images, 0)  # no NaN, at which `jax_debug_nans` would raise an error
  return known.min(), known.max(), finite.all(), _sampled(known)
