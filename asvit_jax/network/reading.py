"""Reads image files at a network's size."""

import os

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.core.progress import Progress
from asvit_jax.data import images as image_files

_EXPECTED = "expected a directory, an image file, or paths of image files"


def read_images(images, arch, preprocessing):
  """Reads, crops and resizes image files; see `Network.read`.

  Args:
    images: a directory, which is searched recursively, an image file, or an iterable of files.
    arch: the `Architecture`, which gives the image size.
    preprocessing: the `Preprocessing`.

  Returns:
    (n, height, width, 3) uint8.

  Raises:
    InputError: not a path, no images found, or an unreadable image.
  """
  paths = paths_of(images)
  progress, size = Progress("reading images", len(paths)), arch.image_size
  found = np.empty((len(paths), *arch.image_shape), np.uint8)
  for i, path in enumerate(paths):
    found[i] = image_files.load_image(path, size, preprocessing)
    progress.update(i + 1)
  return found


def paths_of(images):
  """The list of image files that `read_images` reads, at least one."""
  if is_path(images):
    place = _path(images, "the path of images")
    paths = [place] if image_files.is_file(place) else image_files.find(place)
    if not paths:
      raise InputError(f"{place}: no image files found: {_EXPECTED}")
    return paths
  try:
    given = list(images)
  except TypeError as error:  # of a number, of a PIL image, of an array of one
    raise InputError(f"images to read are {_kind(images)}: {_EXPECTED}") from error
  if not given:
    raise InputError(f"no image files to read: {_EXPECTED}")
  return [_path(path, f"image {i} of those to read") for i, path in enumerate(given)]


def _path(path, what):
  """The path, as given; raises InputError for an empty one, and for anything else."""
  if not is_path(path):
    raise InputError(
      f"{what} is {_kind(path)}: {_EXPECTED}; for images that are read already, call "
      "`network(images)`"
    )
  path = os.fsdecode(path) if isinstance(path, bytes) else path
  if not os.fspath(path):
    raise InputError(f"{what} is empty: {_EXPECTED}")
  return path


def is_path(path):
  """Whether a value is a path, of any of Python's types."""
  return isinstance(path, (str, bytes, os.PathLike))


def _kind(value):
  if value is None or isinstance(value, (bool, int, float)):
    return shown(value)
  return f"of type {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")
