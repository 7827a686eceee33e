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
_AT_ONCE = 2 << 30  # bytes that all threads of a process may take together
# Where PIL warns, `header` decides.
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


class _Memory:
  """What threads take together; who would take too much waits for the others."""

  def __init__(self):
    self._changed = threading.Condition()
    self._taken = 0

  @contextlib.contextmanager
  def taking(self, size):
    with self._changed:
      self._changed.wait_for(lambda: not self._taken or self._taken + size <= _AT_ONCE)
      self._taken += size
    try:
      yield
    finally:
      with self._changed:
        self._taken -= size
        self._changed.notify_all()


_memory = _Memory()


def room_for(image):
  """A context in which there is memory to decode an image, of which only the header was read."""
  return _memory.taking(image.width * image.height * _BYTES.get(image.format, _MOST_BYTES))


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
