"""A directory of images: `<dir>/<split>/<class>/<image>`."""

import collections
import os

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.storage import read_image
from asvit_jax.data.images import SUFFIXES
from asvit_jax.data.sources import check_directory
from asvit_jax.data.sources.listing import image_files, list_files, subdirectories


class Folder:
  """See `sources`."""

  def open(self, data, split, allow_flat):
    """Opens `data.dir`/split, or where that may be flat `data.dir` itself.

    Raises:
      InputError: a directory, its images or the classes file is missing or wrong.
    """
    check_directory(data)
    base = storage.path(data.dir)
    root = base / split
    if not base.is_dir():
      raise InputError(f"data.dir {str(base)!r} is not a directory: give that of the images")
    if not root.is_dir():
      if not (allow_flat and any(image_files(base / name) for name in subdirectories(base))):
        raise InputError(
          f"data.dir {str(base)!r} has no split {split!r}: expected {root}/<class>/<image>, found "
          f"{_listing(subdirectories(base)) or 'no directories'}"
        )
      root = base
    if data.classes:
      classes = [directory for directory, _ in _read_classes(data.classes)]
      return FolderSource(root, classes, data.get("cache", ""))
    # A validation split may lack a class; the training split then still gives the right labels.
    train = base / data.train_split
    classes = subdirectories(train if train.is_dir() else root)
    return FolderSource(root, classes, data.get("cache", ""))

  def class_names(self, data):
    """What the classes file says after the directories, else the directories of `train_split`."""
    if data.classes:
      return [name for _, name in _read_classes(data.classes)]
    train = storage.path(data.dir) / data.train_split
    return subdirectories(train) if data.dir and train.is_dir() else None


folder = Folder()


class FolderSource:
  """Images in one directory a class.

  Args:
    root: directory of the class directories.
    classes: names of the directories in label order; some may be missing.
    cache: directory to keep the list of files in; see `listing.list_files`.
  """

  def __init__(self, root, classes, cache=""):
    self.classes = tuple(classes)
    self._root = str(root)
    self._files = list_files(self._root, cache)
    labels = {name: label for label, name in enumerate(classes)}
    present = [name for name, *_ in self._files.directories]
    unknown = [name for name in present if name not in labels]
    if unknown:
      raise InputError(
        f"{root} has {len(unknown)} directories that are not among the {len(classes)} classes: "
        f"{_listing(unknown)}; add them to the classes file (data.classes) or remove them"
      )
    if not len(self._files):
      raise InputError(f"{root} has no images: expected <class>/*{{{','.join(SUFFIXES)}}} in it")
    # Examples come in the order of the labels, files in that of the directories' names.
    self._directories = sorted(range(len(present)), key=lambda i: labels[present[i]])
    self._labels = [labels[present[i]] for i in self._directories]
    counts = np.diff(self._files.firsts)
    self._ends = np.cumsum(counts[self._directories])

  def __len__(self):
    return len(self._files)

  def __getitem__(self, index):
    place = int(np.searchsorted(self._ends, index, side="right"))
    directory = self._directories[place]
    number = index - self._ends[place] + self._files.firsts[directory + 1]  # both from the end
    name = os.fsdecode(self._files[int(number)])
    file = os.path.join(self._root, self._files.directories[directory][0], name)
    image = read_image(file, "replace or remove it")
    return {"image": image, "label": self._labels[place], "file": file}


def _listing(names):
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _read_classes(file):
  """[(directory, name)] in label order: the first word of every line, and what follows it if any.

  Raises:
    InputError: no such file, an empty line, or a directory on two lines.
  """
  try:
    lines = storage.read(file).decode().rstrip().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(
      f"data.classes {file!r} cannot be read ({error}): give a text file with a class a line"
    ) from error
  empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
  if empty or not lines:
    raise InputError(
      f"data.classes {file!r} has no class on line {empty[0] if empty else 1}: the line number is "
      "the label, so no line may be empty"
    )
  classes = [line.split()[0] for line in lines]
  twice = [name for name, count in collections.Counter(classes).items() if count > 1]
  if twice:
    raise InputError(
      f"data.classes {file!r} names a class more than once: {_listing(twice)}; name each once"
    )
  return [(line.split()[0], line.split(maxsplit=1)[-1].strip()) for line in lines]
