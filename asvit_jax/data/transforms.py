"""Image transforms on the host: PIL images of uint8 in and out, one at a time.

Normalisation is left to the device, see `Preprocessing`: uint8 is a quarter of the bytes to send.
"""

import io
import math

import numpy as np
from PIL import Image, ImageEnhance

from asvit_jax.core.errors import InputError
from asvit_jax.core.sizes import height_width


def decode(encoded, file):
  """Decodes any image that PIL reads.

  Args:
    encoded: bytes of a JPEG, PNG, WebP or BMP file; grey, palette, CMYK and RGBA are welcome.
    file: where it came from, for the error message.

  Returns:
    PIL RGB image.

  Raises:
    InputError: `encoded` is not an image, or only a part of one.
  """
  try:
    return Image.open(io.BytesIO(encoded)).convert("RGB")
  except Exception as error:  # PIL's decoders raise many types; the cause is always the file
    raise InputError(
      f"{file} is not a readable image ({len(encoded):,} bytes, {_reason(error)}): replace or "
      "remove it"
    ) from error


def _reason(error):
  # PIL names the memory buffer it was given, which helps nobody.
  unknown = isinstance(error, Image.UnidentifiedImageError)
  return "no known image format" if unknown else str(error) or type(error).__name__


def random_resized_crop(
  image, size, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bicubic"
):
  """Crops a random part and resizes it: the crop of Inception, arXiv:1409.4842.

  Args:
    image: PIL image.
    size: of the result, see `core.sizes`.
    rng: np.random.Generator.
    scale: smallest and largest share of the image's area to crop.
    ratio: smallest and largest width ÷ height of the crop, drawn uniformly in its logarithm; times
      that of the result, which is 1 for a square.
    interpolation: of `preprocessing.INTERPOLATIONS`.

  Returns:
    PIL image of that size.  When ten draws do not fit into the image, its largest centre crop
    with an aspect ratio in the range.
  """
  width, height = image.size
  result_height, result_width = height_width(size)
  ratio = [bound * (result_width / result_height) for bound in ratio]
  for _ in range(10):
    area = width * height * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      x, y = rng.integers(0, width - w, endpoint=True), rng.integers(0, height - h, endpoint=True)
      break
  else:
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    x, y = (width - w) // 2, (height - h) // 2
  cropped = image.crop((x, y, x + w, y + h))
  return _resize(cropped, result_height, result_width, interpolation)


def random_shift(image, max_pixels, rng):
  """Moves the image by up to `max_pixels` along each axis; black comes in.

  Args:
    image: PIL image.
    max_pixels: largest shift, pixels.
    rng: np.random.Generator.

  Returns:
    PIL image of the same size.
  """
  x, y = rng.integers(-max_pixels, max_pixels, size=2, endpoint=True)
  return image.crop((x, y, x + image.width, y + image.height))


def hflip(image):
  """Mirrors left and right."""
  return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def color_jitter(image, strength, rng):
  """Changes brightness, contrast and saturation, in random order.

  Args:
    image: PIL RGB image.
    strength: in [0, 1]; each factor is uniform in [1 - strength, 1 + strength], 1 changes nothing.
    rng: np.random.Generator.

  Returns:
    PIL RGB image of the same size.
  """
  enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
  for i in rng.permutation(len(enhancers)):
    image = enhancers[i](image).enhance(rng.uniform(1 - strength, 1 + strength))
  return image


def center_crop(image, size, preprocessing):
  """The evaluation view: resizes the image, then crops the centre.

  Args:
    image: PIL image.
    size: of the result, see `core.sizes`.
    preprocessing: a `Preprocessing`; 224 at its default crop ratio of 0.875 is the usual "resize to
      256, crop 224", pixel for pixel that of torchvision. A rectangle is cut as timm cuts it.

  Returns:
    PIL image of that size.
  """
  (height, width), (y, x) = _crop_geometry((image.height, image.width), size, preprocessing)
  resized = _resize(image, height, width, preprocessing.interpolation)
  result_height, result_width = height_width(size)
  return resized.crop((x, y, x + result_width, y + result_height))


def center_crop_box(box, original_hw, size, preprocessing):
  """Follows a box through `center_crop`.

  Args:
    box: (4,) (ymin, xmin, ymax, xmax) relative to the whole image.
    original_hw: height and width of the whole image, pixels.
    size: as for `center_crop`.
    preprocessing: as for `center_crop`.

  Returns:
    (4,) float32 box relative to the crop, clipped to [0, 1]; of no area where it lies outside.
  """
  resized_hw, corner = _crop_geometry(original_hw, size, preprocessing)
  pixels = np.asarray(box, np.float64).reshape(2, 2) * resized_hw - corner
  return np.clip(pixels / height_width(size), 0, 1).reshape(4).astype(np.float32)


def _crop_geometry(original_hw, size, preprocessing):
  """Height and width to resize to, and the crop's corner (y, x); rounded as torchvision does."""
  result = height_width(size)
  covered = tuple(math.floor(side / preprocessing.crop_ratio) for side in result)
  if preprocessing.crop_mode == "squash":
    resized = covered
  elif result[0] == result[1]:
    resized = tuple(int(covered[0] * side / min(original_hw)) for side in original_hw)
  else:  # the least of the image's own shape that covers it, rounded as timm does
    ratio = min(side / least for side, least in zip(original_hw, covered, strict=True))
    resized = tuple(round(side / ratio) for side in original_hw)
  return resized, tuple(round((a - b) / 2) for a, b in zip(resized, result, strict=True))


def _resize(image, height, width, interpolation):
  if image.size == (width, height):
    return image
  return image.resize((width, height), Image.Resampling[interpolation.upper()])
