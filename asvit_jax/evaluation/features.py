"""Features of images for dense tasks, saved as a file."""

import numpy as np

from asvit_jax.core import storage
from asvit_jax.export.programs import meaningful


class Features:
  """Collects tokens, positions, sources and scores image by image, in the order of the files.

  Args:
    paths: paths of the images.

  Attributes:
    arrays: {name: (images, …) NumPy array}:
      files: (images,) paths, text.
      tokens: (images, prefix + n, d) float32 after the last block and the final norm, the class
        token first; 0 in rows of tokens that were pruned.
      positions: (images, prefix + n) int32 index of each row's token: 0 is the class token; the
        patches, row by row, start at prefix (`Architecture.prefix_tokens`, 1 except for distilled
        networks); -1 is a pruned token.
      sources: (images, n) int32 index of the token that each patch is part of, by the same numbers;
        -1 if it was dropped. Missing if the network's reduction does not say where tokens go.
      kept: (images, stages) int32 number of patches that each stage keeps.
      scores: (images, stages, n) float32 scores that the stages compared, NaN for patches that an
        earlier stage pruned; missing for packed execution, which returns none.
  """

  def __init__(self, paths):
    self.arrays = {"files": np.array([str(path) for path in paths])}
    self._filled = 0

  def add(self, **arrays):
    """Stores the arrays of the next images; arrays that are None are omitted."""
    (count,) = {len(array) for array in arrays.values() if array is not None}
    for name, array in arrays.items():
      if array is not None:
        array = np.asarray(array)
        shape = (len(self.arrays["files"]), *array.shape[1:])
        whole = self.arrays.setdefault(name, np.zeros(shape, array.dtype))
        whole[self._filled : self._filled + count] = array
    self._filled += count

  def add_outputs(self, outputs, count):
    """Stores the `Outputs` of the first `count` images of a batch."""
    scores, keep = outputs.scores, np.asarray(outputs.keep[:count])
    if scores is not None:
      before = np.concatenate([np.ones_like(keep[:, :1]), keep], axis=1)[:, : keep.shape[1]]
      scores = np.where(before > 0, np.asarray(scores[:count]), np.nan)
    positions = np.asarray(outputs.positions[:count])
    tokens = np.asarray(meaningful(outputs)[:count])
    kept = np.asarray(outputs.kept[:count]).astype(np.int32)
    sources = None if outputs.sources is None else outputs.sources[:count]
    self.add(tokens=tokens, positions=positions, kept=kept, scores=scores, sources=sources)

  def save(self, path):
    """Writes an .npz file; raises InputError if it cannot be written."""
    with storage.replacing(path, "features") as partial, partial.open("wb") as file:
      np.savez(file, **self.arrays)


def check_path(path):
  """Raises InputError if features could not be written to a path."""
  storage.check_writable(storage.path(path).parent, "the directory of --features")
  storage.check_file(path, "--features")
