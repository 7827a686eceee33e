"""Runs the programs of a loaded artifact for any number of images, without recompilation."""

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.sizes import check_batches
from asvit_jax.export.programs import BATCH_SIZES


class Programs:
  """The programs of a loaded artifact: call it with any number of (b, s, s, 3) uint8 images.

  Args:
    programs: {batch size, or None for any: function of images that returns the sequence of
      `programs.OUTPUTS`, optionally followed by `programs.FEATURES`}.
    compiles: whether the program for any number of images compiles again for each number.

  Attributes:
    by_size: the programs.
    sizes: batch sizes at which it runs, ascending; empty if it runs every number directly.
    packed_sizes: batch sizes of the packed programs, ascending; empty if there are none.
  """

  def __init__(self, programs, compiles=True):
    self.by_size, self._compiles = programs, compiles
    self.sizes = tuple(sorted(size for size in programs if size is not None))
    # A format without a program for any number has no packed programs either.
    self.packed_sizes = self.sizes if None in programs else ()

  def __call__(self, images):
    """(b, s, s, 3) uint8 -> (b, classes) logits, (b, stages) kept, and further outputs if any.

    Images run at `sizes`, see `runs`; padding does not affect results.

    Returns:
      A tuple of NumPy arrays.

    Raises:
      InputError: there are no images.
    """
    images = np.asarray(images)  # slicing an array on a device would compile, too
    if not len(images):
      raise InputError("no images: expected at least one")
    results, start = [], 0
    for count, size in runs(len(images), self.sizes):
      part = images[start : start + count]
      # Pad with the last image, which needs no wider program than it already does.
      part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
      results.append([np.asarray(array)[:count] for array in self.of_size(size)(part)])
      start += count
    return tuple(np.concatenate(arrays) for arrays in zip(*results, strict=True))

  def of_size(self, size):
    """The program for a batch size."""
    return self.by_size.get(size) or self.by_size[None]

  def warm_up(self, image, sizes=None):
    """Runs the programs that calls will run, so that no call compiles or loads anything.

    Args:
      image: (s, s, 3) uint8, any image.
      sizes: batch sizes of all later calls; by default those of its programs or, if one program
        compiles for each number, `programs.BATCH_SIZES`.

    Raises:
      InputError: there is no program for a size.
    """
    fixed = tuple(sorted(size for size in self.by_size if size is not None))
    known = f"this artifact runs at {', '.join(map(str, fixed)) or 'numbers of images'}"
    numbers = check_batches(() if sizes is None else sizes, known)
    sizes = tuple(numbers or fixed or (BATCH_SIZES if self._compiles else ()))
    if any(fixed and size not in fixed for size in sizes):
      raise InputError(f"batch sizes {list(sizes)}: {known}")
    if fixed or self._compiles:
      self.sizes = sizes
    for size in sizes or (1,):
      self.of_size(size)(np.stack([image] * size))


def runs(count, sizes):
  """Splits a number of images into runs of given batch sizes.

  A run is padded to the next larger size if that is at least half used; otherwise it is cut to the
  next smaller one.

  Args:
    count: number of images.
    sizes: batch sizes, ascending; empty for any.

  Returns:
    List of (images of the run, its size).
  """
  found = []
  while count:
    above = next((size for size in sizes if size >= count), None)
    below = max((size for size in sizes if size < count), default=None)
    if not sizes:
      above = count
    size = below if above is None or (below is not None and 2 * count < above) else above
    found.append((min(count, size), size))
    count -= found[-1][0]
  return found
