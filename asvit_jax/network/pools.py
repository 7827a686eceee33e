"""Equally large pools of images, from arrays, batches, single images or files, read as needed."""

import collections
import concurrent.futures
import contextlib
import os

import numpy as np
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.data import images as image_files
from asvit_jax.network.reading import is_path, paths_of
from asvit_jax.vit import images as image_arrays

_THREADS = min(16, os.cpu_count() or 1)  # that decode files
_EXPECTED = (
  "expected an array, files, or an iterable of images, (h, w, 3), of batches, (b, h, w, 3), or of "
  "paths"
)


def pools(images, size, arch, preprocessing):
  """Checks that images can be read, and returns an iterator of pools of them.

  Args:
    images: see `Network.stream`.
    size: number of images in a pool.
    arch: the `Architecture` that will run them.
    preprocessing: its `Preprocessing`.

  Returns:
    Iterator of NumPy arrays (size, h, w, 3), of which the last may have fewer images. It raises
    InputError for an item that is no image, and if there are no images.

  Raises:
    InputError: not an array, files or an iterable; an array that does not fit.
  """
  if is_path(images):
    items = paths_of(images)
  elif isinstance(images, (dict, Image.Image)) or not _is_array(images):
    items = [images] if isinstance(images, dict) else _iterable(images)
  else:
    array = image_arrays.checked(images, arch, preprocessing)
    return (np.asarray(array[i : i + size]) for i in range(0, len(array), size))
  return _joined(_arrays(_read(items, arch, preprocessing), arch, preprocessing), size)


def _is_array(images):
  if getattr(getattr(images, "dtype", None), "kind", "") in ("O", "S", "U"):  # of paths
    return False
  return hasattr(images, "shape") or hasattr(images, "__array__") or isinstance(images, memoryview)


def _iterable(images):
  kinds = (str, bytes, bytearray, Image.Image)
  if isinstance(images, kinds) or not hasattr(images, "__iter__"):
    kind = type(images)
    what = shown(images) if images is None else f"of type {kind.__module__}.{kind.__qualname__}"
    raise InputError(f"images to stream are {what.replace('builtins.', '')}: {_EXPECTED}")
  return images


def _read(items, arch, preprocessing):
  """Yields the items in order; in place of paths, images, which threads decode ahead."""

  def load(path):
    return image_files.load_image(path, arch.image_size, preprocessing)

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
    decoding = collections.deque()
    for item in items:
      if is_path(item):
        (path,) = paths_of([item])
        decoding.append(threads.submit(load, path))
      while decoding and (len(decoding) > 2 * _THREADS or not is_path(item)):
        yield decoding.popleft().result()
      if not is_path(item):
        yield item
    while decoding:
      yield decoding.popleft().result()


def _arrays(items, arch, preprocessing):
  """Yields each item as a NumPy array (b, h, w, 3), without padding; all have the same type."""
  kind = None
  for i, item in enumerate(items):
    try:
      array = _array(item, arch, preprocessing)
    except InputError as error:
      raise InputError(f"item {i} of the images to stream: {error}") from error
    kind = kind or array.dtype
    if array.dtype != kind:
      raise InputError(
        f"item {i} of the images to stream is {array.dtype}, and those before are {kind}: expected "
        "one type; uint8 pixels, or images that were normalised before"
      )
    yield array


def _array(item, arch, preprocessing):
  if isinstance(item, dict) or len(getattr(item, "shape", ())) == 4:
    batch = image_arrays.read_batch(item, arch, preprocessing)
    return np.asarray(batch["image"])[batch["valid"]]
  return np.asarray(image_arrays.checked([item], arch, preprocessing))


def _joined(arrays, size):
  """Yields pools of `size` images of arrays; the last may have fewer."""
  waiting, count, any_yet = [], 0, False
  with contextlib.closing(arrays):
    for array in arrays:
      waiting.append(array)
      count += len(array)
      while count >= size:
        joined = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        yield joined[:size]
        any_yet, count = True, count - size
        waiting = [joined[size:]] if count else []
  if count:
    yield np.concatenate(waiting)
  elif not any_yet:
    raise InputError("no images: expected at least one")
