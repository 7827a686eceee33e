"""Opens untrusted images: only of known formats, and no larger than memory allows.

A decoder allocates memory for every pixel that a file's header promises, whatever follows: half a
megabyte can take gigabytes. So the header is checked first.
"""

import contextlib
import functools
import threading
import warnings

from PIL import Image, UnidentifiedImageError

from asvit_jax.data import files

_MEMORY = 1 << 30  # bytes that decoding one image may allocate
# Measured bytes a pixel, including PIL's own RGB. Most formats, also progressive JPEG, need at most
# 10.2.
_BYTES = {"WEBP": 16, "JPEG2000": 24}
_MOST_BYTES = 10
_AT_ONCE = 2 << 30  # bytes that all threads of a process may allocate together
# `header` decides in PIL's place.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class TooLarge(Exception):
  """An image with more pixels than may be decoded."""


def most_pixels(kind):
  """The largest number of pixels that an image of a PIL format may have."""
  return _MEMORY // _BYTES.get(kind, _MOST_BYTES)


def header(file):
  """Opens an image with PIL and reads only its header.

  Args:
    file: path or file object.

  Raises:
    TooLarge: the image has more than `most_pixels`.
    Exception: any of PIL's many error types, for anything but an image of `files.FORMATS`.
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
  """Limits the memory that threads use together: a thread waits until there is room."""

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
  """A context that waits for enough memory to decode an image that `header` opened."""
  return _memory.taking(image.width * image.height * _BYTES.get(image.format, _MOST_BYTES))


def reason(error):
  """Why an image could not be opened, in words; PIL's own message may be empty or name a buffer."""
  if isinstance(error, UnidentifiedImageError):
    return "no known image format"
  if isinstance(error, TooLarge):
    return f"too large: {error}"
  return getattr(error, "strerror", None) or str(error) or type(error).__name__


@functools.cache
def _formats():
  """The `files.FORMATS` that this build of PIL supports."""
  Image.init()
  return tuple(name for name in files.FORMATS if name in Image.OPEN)
