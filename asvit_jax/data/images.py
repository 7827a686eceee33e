"""Image files that are not part of a data set."""

import io
import os

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.storage import read_image
from asvit_jax.data import files, opening, transforms


class ImageFiles:
  """Image files without labels, as a `Source`.

  Args:
    paths: paths of the files.
    classes: names of the network's classes in label order.
  """

  def __init__(self, paths, classes):
    self.classes = tuple(classes)
    self._paths = tuple(paths)

  def __len__(self):
    return len(self._paths)

  def __getitem__(self, index):
    path = self._paths[index]
    return {"image": read_image(path), "label": -1, "file": path}


def load_image(path, size, preprocessing):
  """Reads an image file and crops it as the network expects.

  Args:
    path: path of the file.
    size: size of the result, see `core.sizes`.
    preprocessing: a `Preprocessing`.

  Returns:
    (height, width, 3) uint8.

  Raises:
    InputError: the file cannot be read.
  """
  image = transforms.decode(read_image(path), str(path))
  return np.asarray(transforms.center_crop(image, size, preprocessing))


def check_files(paths):
  """Raises InputError for the first path that is not a readable image, judging by its header."""
  for path in paths:
    try:
      with opening.header(_file(path)):
        pass
    except opening.TooLarge as error:
      raise InputError(f"image {path} is too large ({error}): make it smaller") from error
    except Exception as error:  # PIL raises many types; the cause is always the file
      reason = opening.reason(error)
      raise InputError(f"image {path} cannot be read ({reason}): check the path") from error


def _file(path):
  """The argument for PIL: a path on a disk, as the header suffices; or the bytes from a bucket."""
  if storage.in_bucket(path):
    return io.BytesIO(storage.read(path))
  found = storage.path(path)
  storage.check_regular(found, os.stat(found))
  return found


def is_file(path):
  """Whether a path is a regular file on a disk, whatever its name."""
  if storage.in_bucket(path):
    return False
  try:
    return os.path.isfile(storage.path(path))
  except ValueError:  # a name with a zero byte
    return False


def find(directory):
  """Sorted paths of the image files in a directory and below.

  Raises:
    InputError: the directory cannot be read.
  """
  root = storage.on_disk(directory, "the directory of images", "copy them to one")
  return (
    sorted(root / name for name in files.scan(root, root).names) if files.is_directory(root) else []
  )
