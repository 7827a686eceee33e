"""Image sizes, a number for squares or (height, width); and batch sizes."""

import re

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown

MOST_BATCH = 2**20  # images
EXPECTED = "the side of a square in pixels, 224, or height and width, (224, 448) or 224x448"


def is_whole(value):
  """Whether a value of any type is a whole number; booleans are not."""
  return not isinstance(value, bool) and hasattr(value, "__index__")


def height_width(size):
  """The height and width in pixels that a size stands for.

  Args:
    size: a number, the side of a square; a pair (height, width); or either as text, "224x448".

  Raises:
    InputError: anything else.
  """
  pair = size
  if isinstance(size, str):
    match = re.fullmatch(r"\s*\(?\s*(\d+)\s*(?:[xX,×]\s*(\d+)\s*)?\)?\s*", size)
    pair = match and (int(match[1]), int(match[2] or match[1]))
  elif not isinstance(size, (tuple, list)):
    pair = (size, size)
  if not pair or len(pair) != 2 or not all(is_whole(side) and side >= 1 for side in pair):
    raise InputError(f"image size {shown(size)} is not valid: expected {EXPECTED}")
  return int(pair[0]), int(pair[1])


def plain(size):
  """The canonical form of a size: a number for a square, else (height, width)."""
  height, width = height_width(size)
  return height if height == width else (height, width)


def check_batches(numbers, expected="expected numbers of images, at least 1, as (1, 32)"):
  """Sorted distinct batch sizes; raises InputError for invalid ones and those above 2**20.

  Args:
    numbers: an iterable of whole numbers, at least 1 each.
    expected: the description of valid values in the error.
  """
  listed = list(numbers) if hasattr(numbers, "__iter__") and not isinstance(numbers, str) else None
  whole = listed is not None and all(map(is_whole, listed))
  listed = sorted({int(number) for number in listed}) if whole else listed
  if not whole or any(number < 1 for number in listed):
    raise InputError(f"batch sizes {shown(numbers if listed is None else listed)}: {expected}")
  if listed and listed[-1] > MOST_BATCH:
    raise InputError(
      f"batch sizes {shown(listed)}: expected at most {MOST_BATCH:,} images in a batch"
    )
  return listed
