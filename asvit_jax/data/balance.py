"""Class-balanced sampling: a stream of examples in which every class appears equally often."""

import functools
import sys

import grain
import numpy as np

from asvit_jax.core.progress import Progress


class ClassBalanced(grain.MapDataset):
  """An endless dataset in which every run of as many examples as classes has one of each.

  The order of the classes is drawn anew for each such run. The images of a class come in random
  order, each once before any repeats.

  Args:
    parent: dataset of all examples.
    labels: (examples,) int class of each example; classes without examples are skipped.
    seed: seed of the random orders.
  """

  def __init__(self, parent, labels, seed):
    super().__init__(parent)
    self._seed = seed
    self._order = np.argsort(labels, kind="stable").astype(np.int32)
    counts = np.bincount(labels)
    self._counts = counts[counts > 0]
    self._firsts = np.cumsum(self._counts) - self._counts

  def __len__(self):
    return sys.maxsize

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    row, place = divmod(index, len(self._counts))
    label = int(self._classes(row)[place])
    epoch, number = divmod(row, int(self._counts[label]))
    return self._parent[int(self._order[self._firsts[label] + self._images(label, epoch)[number]])]

  @functools.cached_property
  def _classes(self):
    return functools.lru_cache(8)(lambda row: self._permutation(len(self._counts), row))

  @functools.cached_property
  def _images(self):
    """Permutations of the images of each class, cached; each serves one pass over the class."""
    kept = functools.lru_cache(2 * len(self._counts))
    return kept(lambda label, epoch: self._permutation(self._counts[label], label, epoch))

  def _permutation(self, count, *place):
    return np.random.default_rng((self._seed, len(place), *place)).permutation(count)


def labels_of(source):
  """(images,) int labels of a `Source`; reads every example if the source has no `labels`."""
  labels = getattr(source, "labels", None)
  if labels is not None:
    return np.asarray(labels)
  progress = Progress("reading labels, images", len(source))
  found = np.zeros(len(source), np.int32)
  for i in range(len(source)):
    found[i] = source[i]["label"]
    progress.update(i + 1)
  return found
