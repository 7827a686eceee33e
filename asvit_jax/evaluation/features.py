"""What a network makes of images besides their classes, for dense tasks, as a file."""

import numpy as np

from asvit_jax.core import storage
from asvit_jax.export.programs import meaningful


class Features:
  """Tokens and what goes with them, image by image, in the order of the files.

  Args:
    paths: of the images.

  Attributes:
    arrays: {name: (images, …) NumPy array}, of
      files: (images,) text.
      tokens: (images, prefix + n, d) float32 after the last block and the final norm, the class
        token first; 0 in rows of tokens that were pruned.
      positions: (images, prefix + n) int32, which token a row is: 0 the class token, from prefix
        (`Architecture.prefix_tokens`, 1 but for distilled networks) on the patches, row by row; -1
        for those that were pruned.
      kept: (images, stages) int32, patches that each stage keeps.
      scores: (images, stages, n) float32 that decided it, NaN for patches that an earlier stage had
        pruned; not there where packed, which returns none.
  """

  def __init__(self, paths):
    self.arrays = {"files": np.array([str(path) for path in paths])}
    self._filled = 0

  def add(self, **arrays):
    """Takes the arrays of the next images; one that is None is not there."""
    (count,) = {len(array) for array in arrays.values() if array is not None}
    for name, array in arrays.items():
      if array is not None:
        array = np.asarray(array)
        shape = (len(self.arrays["files"]), *array.shape[1:])
        whole = self.arrays.setdefault(name, np.zeros(shape, array.dtype))
        whole[self._filled : self._filled + count] = array
    self._filled += count

  def add_outputs(self, outputs, count):
    """Takes the first images of `Outputs`."""
    scores, keep = outputs.scores, np.asarray(outputs.keep[:count])
    if scores is not None:
      before = np.concatenate([np.ones_like(keep[:, :1]), keep], axis=1)[:, : keep.shape[1]]
      scores = np.where(before > 0, np.asarray(scores[:count]), np.nan)
    positions = np.asarray(outputs.positions[:count])
    tokens = np.asarray(meaningful(outputs)[:count])
    kept = np.asarray(outputs.kept[:count]).astype(np.int32)
    self.add(tokens=tokens, positions=positions, kept=kept, scores=scores)

  def save(self, path):
    """Writes an .npz file; raises InputError where it cannot be written."""
    with storage.replacing(path, "features") as partial, partial.open("wb") as file:
      np.savez(file, **self.arrays)


def check_path(path):
  """Raises InputError where features could not be written to a path."""
  storage.check_writable(storage.path(path).parent, "the directory of --features")
  storage.check_file(path, "--features")
