"""Image files as a network expects them."""

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import Progress
from asvit_jax.data import images as image_files


def read(images, arch, preprocessing):
  """See `Network.read`.

  Args:
    images: a directory, searched with all below it, or a list of files.
    arch: the `Architecture`, whose image size they get.
    preprocessing: the `Preprocessing`.

  Returns:
    (n, height, width, 3) uint8.

  Raises:
    InputError: no images there, or one that cannot be read.
  """
  listed = isinstance(images, (list, tuple))
  paths = images if listed else image_files.find(images)
  if not paths:
    raise InputError(f"{images}: no image files found; give a directory that has some, or a list")
  progress, size = Progress("reading images", len(paths)), arch.image_size
  found = np.empty((len(paths), *arch.image_shape), np.uint8)
  for i, path in enumerate(paths):
    found[i] = image_files.load_image(path, size, preprocessing)
    progress.update(i + 1)
  return found
