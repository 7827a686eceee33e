"""Opens images that came from anywhere: of the formats that are known, and no larger than fits.

A decoder takes memory for every pixel that the header of a file promises, whatever follows: half a
megabyte can take gigabytes. So the header is asked first.
"""

import contextlib
import functools
import threading
import warnings

from PIL import Image, UnidentifiedImageError

from asvit_jax.data import files

_MEMORY = 1 << 30  # bytes that decoding one image may take
# Bytes a pixel that were measured, PIL's own RGB included: of most, progressive JPEG among them, at
# most 10.2.
_BYTES = {"WEBP": 16, "JPEG2000": 24}
_MOST_BYTES = 10
_MANY = 16 << 20  # pixels from which on a process decodes one image at a time

_one_at_a_time = threading.Lock()
# Where PIL warns, `check_size` decides.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class TooLarge(Exception):
  """An image of more pixels than are decoded."""


def most_pixels(kind):
  """Pixels that an image of a format of PIL may have."""
  return _MEMORY // _BYTES.get(kind, _MOST_BYTES)


def header(file):
  """A PIL image of which only the header was read.

  Args:
    file: path or file object.

  Raises:
    TooLarge: it has more than `most_pixels`.
    Exception: what PIL raises, of many types, for what is no image of `files.FORMATS`.
  """
  try:
    image = Image.open(file, formats=_formats())
  except Image.DecompressionBombError as error:
    raise TooLarge(str(error)) from error
  width, height = image.size
  if width * height > most_pixels(image.format):
    image.close()
    raise TooLarge(
      f"{width}×{height} pixels, and {image.format} is read up to {most_pixels(image.format):,}"
    )
  return image


@contextlib.contextmanager
def room_for(image):
  """Where there is memory to decode an image: large ones wait for each other."""
  with _one_at_a_time if image.width * image.height > _MANY else contextlib.nullcontext():
    yield


def reason(error):
  """Why an image could not be opened, in words; PIL names the buffer it was given, or nothing."""
  if isinstance(error, UnidentifiedImageError):
    return "no known image format"
  if isinstance(error, TooLarge):
    return f"too large: {error}"
  return getattr(error, "strerror", None) or str(error) or type(error).__name__


@functools.cache
def _formats():
  """Those of `files.FORMATS` that this PIL has."""
  Image.init()
  return tuple(name for name in files.FORMATS if name in Image.OPEN)
