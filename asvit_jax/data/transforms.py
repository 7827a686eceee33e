"""Image transforms on the host: functions from a PIL uint8 image to another one.

Normalisation happens on the device, see `Preprocessing`: uint8 images need a quarter of the
transfer.
"""

import io
import math

import numpy as np
from PIL import Image, ImageEnhance

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log_once
from asvit_jax.core.sizes import height_width
from asvit_jax.data import opening


def decode(encoded, file, exif_orientation=True):
  """Decodes an image of any format of `files.FORMATS`; takes the first of several frames.

  Deep pixels are converted to 8 bits, see `_shallow`. Transparency is dropped.

  Args:
    encoded: bytes of an image file.
    file: origin of the image, for the error message.
    exif_orientation: whether to rotate the image as its EXIF data says; ImageNet's published
      numbers were measured without.

  Returns:
    PIL RGB image.

  Raises:
    InputError: `encoded` is not an image, is truncated, has more than `opening.most_pixels`, or has
      deep pixels of an unknown range.
  """
  try:
    image = opening.header(io.BytesIO(encoded))
    with opening.room_for(image):
      turn = _turn(image) if exif_orientation else None
      image.load()
      image = _shallow(image, file)
      if image.mode != "RGB":  # `convert` would copy even an RGB image
        image = image.convert("RGB")
      return image if turn is None else image.transpose(turn)
  except Exception as error:  # PIL's decoders raise many types; the cause is always the file
    raise InputError(
      f"{file} is not a readable image ({len(encoded):,} bytes, {opening.reason(error)}): replace "
      "or remove it"
    ) from error


# EXIF's orientation tag, and the transposition that undoes each of its values.
_ORIENTATION = 0x0112
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


def _turn(image):
  """The transposition that EXIF data asks for, or None; damaged EXIF data is ignored."""
  if image.format == "TIFF":  # PIL rotates these when it loads them
    return None
  try:
    return _TURNS.get(image.getexif().get(_ORIENTATION))
  except Exception:
    return None


def _shallow(image, file):
  """Converts an image to at most 8 bits per channel; deep images, which are grey, are scaled.

  16-bit pixels range from 0 to 65,535; the high byte is kept, as PIL does for colours. 32-bit
  integers and floats have no stated range: it is the smallest of 0 to 1 (floats only), 0 to 255 and
  0 to 65,535 that contains the image's values. 12-bit values stored as 16 bits give a nearly black
  image, about which a warning is logged.
  """
  if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
    return image
  pixels = np.asarray(image)
  tags = getattr(image, "tag_v2", {})
  if image.mode != "F" and (image.mode != "I" or image.format in ("PNG", "PPM")):
    top = 4095 if tags.get(_BITS) == (12,) else 65535
    if top == 65535 and 0 < pixels.max() <= 4095:
      log_once(
        "dim",
        f"WARNING: {file} has 16-bit pixels, but none above {pixels.max():,}: read as 0 to 65,535, "
        "it is nearly black; if its white is 255 or 4,095, rescale it to 65,535",
      )
  else:
    tops = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    least, most = pixels.min(), pixels.max()
    top = next((top for top in tops if least >= 0 and most <= top), None)
    if top is None:
      raise ValueError(
        f"mode {image.mode}, with pixels from {least:g} to {most:g}, where 0 to "
        f"{' or '.join(map(str, tops))} were expected"
      )
  if top > 255:
    pixels = np.floor(pixels.astype(np.float32) / ((top + 1) / 256))
  else:
    pixels = np.round(pixels * (255 / top))
  if tags.get(_PHOTOMETRIC) == 0:  # white is zero; PIL handles this for 8 bits only
    pixels = 255 - pixels
  return Image.fromarray(pixels.astype(np.uint8))


_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


def random_resized_crop(
  image, size, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bicubic"
):
  """Crops a random part and resizes it: Inception's crop, arXiv:1409.4842.

  Args:
    image: PIL image.
    size: size of the result, see `core.sizes`.
    rng: np.random.Generator.
    scale: smallest and largest share of the image's area to crop.
    ratio: smallest and largest width ÷ height of the crop, relative to that of the result; drawn
      uniformly in its logarithm.
    interpolation: one of `preprocessing.INTERPOLATIONS`.

  Returns:
    PIL image of that size. If ten draws do not fit into the image, the crop is its largest centre
    crop with an aspect ratio in the range.
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
  """Shifts the image by up to `max_pixels` along each axis; the border is filled with black.

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
  """Mirrors the image left to right."""
  return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def color_jitter(image, strength, rng):
  """Changes brightness, contrast and saturation, in random order.

  Args:
    image: PIL RGB image.
    strength: in [0, 1]; each factor is uniform in [1 - strength, 1 + strength]; a factor of 1
      changes nothing.
    rng: np.random.Generator.

  Returns:
    PIL RGB image of the same size.
  """
  enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
  for i in rng.permutation(len(enhancers)):
    image = enhancers[i](image).enhance(rng.uniform(1 - strength, 1 + strength))
  return image


def center_crop(image, size, preprocessing):
  """The view for evaluation: resizes the image, then crops the centre.

  Args:
    image: PIL image.
    size: size of the result, see `core.sizes`.
    preprocessing: a `Preprocessing`; size 224 with the default crop ratio 0.875 is the usual
      "resize to 256, crop 224", equal to torchvision's in every pixel. Rectangles follow timm.

  Returns:
    PIL image of that size.
  """
  original_hw = (image.height, image.width)
  result_height, result_width = height_width(size)
  (height, width), (y, x) = _crop_geometry(original_hw, size, preprocessing)
  squashed = preprocessing.crop_mode == "squash"
  thin = max(original_hw) > _THIN * min(original_hw) and not squashed
  if thin or height * width > _MOST_PIXELS:  # resizing the whole image may take gigabytes
    scale = min(original_hw) / min(height, width)
    scale_y, scale_x = scale, scale
    if squashed:
      scale_y, scale_x = image.height / height, image.width / width
    box = (
      *(x * scale_x, y * scale_y),
      *(
        min(image.width, (x + result_width) * scale_x),
        min(image.height, (y + result_height) * scale_y),
      ),
    )
    filter_ = Image.Resampling[preprocessing.interpolation.upper()]
    return image.resize((result_width, result_height), filter_, box)
  resized = _resize(image, height, width, preprocessing.interpolation)
  return resized.crop((x, y, x + result_width, y + result_height))


# Above this ratio of its sides, or this many pixels after resizing, an image is cropped before it
# is resized: then memory grows with the result only, whatever the crop ratio.
_THIN = 16
_MOST_PIXELS = 1 << 26


def center_crop_box(box, original_hw, size, preprocessing):
  """Maps a box through `center_crop`.

  Args:
    box: (4,) (ymin, xmin, ymax, xmax) relative to the whole image.
    original_hw: height and width of the whole image, pixels.
    size: as for `center_crop`.
    preprocessing: as for `center_crop`.

  Returns:
    (4,) float32 box relative to the crop, clipped to [0, 1]; its area is 0 if it lies outside.
  """
  resized_hw, corner = _crop_geometry(original_hw, size, preprocessing)
  pixels = np.asarray(box, np.float64).reshape(2, 2) * resized_hw - corner
  return np.clip(pixels / height_width(size), 0, 1).reshape(4).astype(np.float32)


def _crop_geometry(original_hw, size, preprocessing):
  """(height, width) to resize to and the crop's corner (y, x), rounded as in torchvision."""
  result = height_width(size)
  covered = tuple(math.floor(side / preprocessing.crop_ratio) for side in result)
  if preprocessing.crop_mode == "squash":
    resized = covered
  elif result[0] == result[1]:
    resized = tuple(int(covered[0] * side / min(original_hw)) for side in original_hw)
  else:  # the smallest size with the image's aspect ratio that covers it, rounded as in timm
    ratio = min(side / least for side, least in zip(original_hw, covered, strict=True))
    resized = tuple(round(side / ratio) for side in original_hw)
  return resized, tuple(round((a - b) / 2) for a, b in zip(resized, result, strict=True))


def _resize(image, height, width, interpolation):
  if image.size == (width, height):
    return image
  return image.resize((width, height), Image.Resampling[interpolation.upper()])
