"""A directory of images: `<dir>/<split>/<class>/<image>`."""

import collections
import os
from pathlib import Path

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.storage import read_image
from asvit_jax.data.images import SUFFIXES
from asvit_jax.data.sources import check_directory


class Folder:
  """See `sources`."""

  def open(self, data, split, allow_flat):
    """Opens `data.dir`/split, or where that may be flat `data.dir` itself.

    Raises:
      InputError: a directory, its images or the classes file is missing or wrong.
    """
    check_directory(data)
    base = Path(data.dir).expanduser()
    root = base / split
    if not base.is_dir():
      raise InputError(f"data.dir {str(base)!r} is not a directory: give that of the images")
    if not root.is_dir():
      if not (allow_flat and any(_image_files(base / name) for name in _subdirectories(base))):
        raise InputError(
          f"data.dir {str(base)!r} has no split {split!r}: expected {root}/<class>/<image>, found "
          f"{_listing(_subdirectories(base)) or 'no directories'}"
        )
      root = base
    if data.classes:
      return FolderSource(root, [directory for directory, _ in _read_classes(data.classes)])
    # A validation split may lack a class; the training split then still gives the right labels.
    train = base / data.train_split
    return FolderSource(root, _subdirectories(train if train.is_dir() else root))

  def class_names(self, data):
    """What the classes file says after the directories, else the directories of `train_split`."""
    if data.classes:
      return [name for _, name in _read_classes(data.classes)]
    train = Path(data.dir, data.train_split).expanduser()
    return _subdirectories(train) if data.dir and train.is_dir() else None


folder = Folder()


class FolderSource:
  """Images in one directory a class.

  Args:
    root: directory of the class directories.
    classes: names of the directories in label order; some may be missing.
  """

  def __init__(self, root, classes):
    self.classes = tuple(classes)
    self._root = str(root)
    present = _subdirectories(root)
    unknown = sorted(set(present) - set(classes))
    if unknown:
      raise InputError(
        f"{root} has {len(unknown)} directories that are not among the {len(classes)} classes: "
        f"{_listing(unknown)}; add them to the classes file (data.classes) or remove them"
      )
    examples = [
      (os.fsencode(f"{name}/{file}"), label)
      for label, name in enumerate(classes)
      if name in present
      for file in _image_files(root / name)
    ]
    if not examples:
      raise InputError(f"{root} has no images: expected <class>/*{{{','.join(SUFFIXES)}}} in it")
    # Arrays, as every worker process has its own copy of this.
    names, labels = zip(*examples, strict=True)
    self._names, self._labels = np.array(names), np.array(labels, np.int32)

  def __len__(self):
    return len(self._names)

  def __getitem__(self, index):
    file = os.path.join(self._root, os.fsdecode(self._names[index]))
    image = read_image(file, "replace or remove it")
    return {"image": image, "label": int(self._labels[index]), "file": file}


def _subdirectories(root):
  return sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))


def _image_files(directory):
  names = sorted(entry.name for entry in os.scandir(directory))
  return [n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]


def _listing(names):
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _read_classes(file):
  """[(directory, name)] in label order: the first word of every line, and what follows it if any.

  Raises:
    InputError: no such file, an empty line, or a directory on two lines.
  """
  try:
    lines = Path(file).expanduser().read_text().rstrip().splitlines()
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
