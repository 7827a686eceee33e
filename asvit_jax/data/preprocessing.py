"""What a network expects of its images: how they are cut to size, and how pixels are scaled."""

import dataclasses

import numpy as np

from asvit_jax.core.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_MODES = ("center", "squash")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")  # as PIL has them


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """Belongs to the weights: another one costs accuracy without a word.

  The size of the images is the `Architecture`'s.

  Attributes:
    crop_ratio: in (0, 1], side of the centre crop ÷ that of the image before it: the shorter one,
      or both, see crop_mode.
    mean: of each channel, of pixels in [0, 1].
    std: of each channel, of pixels in [0, 1].
    interpolation: of `INTERPOLATIONS`, for resizing.
    crop_mode: "center" keeps the image's shape when it is resized before the crop; "squash" brings
      both sides to their crop's size ÷ crop_ratio, which changes it.
  """

  crop_ratio: float = 0.875
  mean: tuple[float, ...] = IMAGENET_MEAN
  std: tuple[float, ...] = IMAGENET_STD
  interpolation: str = "bicubic"
  crop_mode: str = "center"

  def __post_init__(self):
    """Raises InputError for a value that cannot work, by the config's name of it."""
    for key, fits, expected in (
      ("crop_ratio", 0 < self.crop_ratio <= 1, "in (0, 1]"),
      ("mean", len(self.mean) == 3, "three numbers"),
      ("std", len(self.std) == 3 and min(self.std) > 0, "three numbers above 0"),
      ("interpolation", self.interpolation in INTERPOLATIONS, ", ".join(INTERPOLATIONS)),
      ("crop_mode", self.crop_mode in CROP_MODES, ", ".join(CROP_MODES)),
    ):
      if not fits:
        raise InputError(f"data.{key} {getattr(self, key)!r} is not valid: expected {expected}")

  def normalize(self, images):
    """Scales pixels to the network's input.

    Args:
      images: (b, h, w, 3) uint8, of NumPy or, on the device, of JAX: a quarter of the bytes to
        send.

    Returns:
      (b, h, w, 3) float32.
    """
    mean, std = (np.asarray(v, np.float32).reshape(1, 1, 1, 3) for v in (self.mean, self.std))
    return (images.astype(np.float32) / 255 - mean) / std

  def overridden(self, data):
    """What `config.data` gives of it, the rest as here; raises InputError for what cannot work."""
    given = {field.name: data.get(field.name) for field in dataclasses.fields(self)}
    given = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in given.items()}
    return dataclasses.replace(self, **{k: v for k, v in given.items() if v is not None})

  def to_json(self):
    """As a dictionary for JSON; older versions know no crop_mode."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
    if self.crop_mode == "center":
      del values["crop_mode"]
    return values

  @classmethod
  def from_json(cls, values):
    """From a dictionary of `to_json`; keys that it does not have take their defaults."""
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(
      **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    )
