"""The preprocessing that a network's images need: crop, resize, and scale of the pixels."""

import dataclasses
import numbers

import numpy as np

from asvit_jax.core import schema
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_MODES = ("center", "squash")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")  # PIL's names
# Published networks use 0.5 to 1. Images are first resized to size ÷ this ratio, so a tiny ratio
# would take gigabytes.
LEAST_CROP_RATIO = 0.1
_LEAST_STD = 1e-6
_SCALE = " (divide those of the 0 to 255 scale by 255)"
_CHANNELS = schema.array(schema.number(), 3, 3)
_SCHEMA = schema.table(
  {
    "crop_ratio": schema.number(0, 1),
    "mean": _CHANNELS,
    "std": _CHANNELS,
    "interpolation": schema.text(choices=INTERPOLATIONS),
    "crop_mode": schema.text(choices=CROP_MODES),
  }
)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How images become a network's input. Must match the weights: a mismatch lowers accuracy.

  No error shows a mismatch. The size of the images belongs to the `Architecture`.

  Attributes:
    crop_ratio: in [0.1, 1], side of the centre crop ÷ side of the resized image: of its shorter
      side, or of both, see crop_mode.
    mean: mean of each channel, for pixels in [0, 1].
    std: standard deviation of each channel, for pixels in [0, 1].
    interpolation: one of `INTERPOLATIONS`, for resizing.
    crop_mode: "center" keeps the image's aspect ratio when it is resized before the crop; "squash"
      resizes both sides to their crop's size ÷ crop_ratio, which changes the aspect ratio.
  """

  crop_ratio: float = 0.875
  mean: tuple[float, ...] = IMAGENET_MEAN
  std: tuple[float, ...] = IMAGENET_STD
  interpolation: str = "bicubic"
  crop_mode: str = "center"

  def __post_init__(self):
    """Raises InputError for an invalid value, under its name in the config."""
    # Accept lists and arrays; store tuples, which are hashable and fit for JSON.
    for key in ("mean", "std"):
      value = getattr(self, key)
      if getattr(value, "ndim", None) == 1:
        value = np.asarray(value).tolist()
      if isinstance(value, (list, tuple)):
        plain = tuple(v.item() if isinstance(v, np.generic) else v for v in value)
        object.__setattr__(self, key, plain)
    for key, fits, expected in (
      (
        "crop_ratio",
        _all_within((self.crop_ratio,), LEAST_CROP_RATIO, 1),
        f"in [{LEAST_CROP_RATIO}, 1]",
      ),
      (
        "mean",
        _is_three(self.mean) and _all_within(self.mean, -1, 1),
        f"three numbers, of pixels in [0, 1]{_SCALE}",
      ),
      (
        "std",
        _is_three(self.std) and _all_within(self.std, _LEAST_STD, 10),
        f"three numbers above 0, of pixels in [0, 1]{_SCALE}",
      ),
      ("interpolation", _is_one_of(INTERPOLATIONS, self.interpolation), ", ".join(INTERPOLATIONS)),
      ("crop_mode", _is_one_of(CROP_MODES, self.crop_mode), ", ".join(CROP_MODES)),
    ):
      if not fits:
        raise InputError(
          f"data.{key} {shown(getattr(self, key))} is not valid: expected {expected}"
        )

  def normalize(self, images):
    """Normalises pixels for the network.

    Args:
      images: (…, h, w, 3) uint8 array of NumPy or JAX. On the device, uint8 needs a quarter of the
        transfer.

    Returns:
      (…, h, w, 3) float32.
    """
    # The same rank as the images: JAX may be set to refuse implicit rank promotion.
    shape = (1,) * (images.ndim - 1) + (3,)
    mean, std = (np.asarray(v, np.float32).reshape(shape) for v in (self.mean, self.std))
    return (images.astype(np.float32) / 255 - mean) / std

  def overridden(self, data):
    """A copy with the values that `config.data` sets; raises InputError for invalid values."""
    given = {field.name: getattr(data, field.name, None) for field in dataclasses.fields(self)}
    given = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in given.items()}
    return dataclasses.replace(self, **{k: v for k, v in given.items() if v is not None})

  def to_json(self):
    """A dictionary for JSON. It omits a `crop_mode` of "center", which older versions lack."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
    if self.crop_mode == "center":
      del values["crop_mode"]
    return values

  @classmethod
  def from_json(cls, values, source=""):
    """Builds it from a dictionary of `to_json`; missing keys take their defaults.

    Args:
      values: the dictionary.
      source: origin of the dictionary, for the error.

    Raises:
      InputError: values of other types, or invalid values.
    """
    what = f"{source}: its preprocessing" if source else "preprocessing"
    schema.check(values, _SCHEMA, what)
    known = {field.name for field in dataclasses.fields(cls)}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    try:
      return cls(**given)
    except InputError as error:
      raise InputError(f"{what}: {error}") from error


def _is_three(values):
  return isinstance(values, tuple) and len(values) == 3


def _all_within(values, least, most):
  """Whether all values are finite numbers in [least, most]."""
  return all(
    isinstance(value, numbers.Real) and not isinstance(value, bool) and least <= value <= most
    for value in values
  )


def _is_one_of(names, name):
  return isinstance(name, str) and name in names
