"""A directory of images: `<dir>/<split>/<class>/<image>`, or with a file of their classes."""

import collections
import functools
import os

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.storage import read_image
from asvit_jax.data import files
from asvit_jax.data.sources import check_directory, links
from asvit_jax.data.sources.classes import listing, normal, of_directories, read_classes
from asvit_jax.data.sources.labels import read_labels
from asvit_jax.data.sources.listing import Listing, list_files
from asvit_jax.data.sources.matching import Images

_ADVICE = "replace or remove it"


class Folder:
  """A folder of images as a kind of source; the interface is described in `sources`."""

  def open(self, data, split, allow_flat):
    """Opens `data.dir`/split, or `data.dir` itself if that is allowed.

    Raises:
      InputError: a directory, its images or the file of classes is missing or invalid.
    """
    check_directory(data)
    base = storage.path(data.dir)
    root = base / split
    if not files.is_directory(base):
      raise InputError(f"data.dir {str(base)!r} is not a directory: give that of the images")
    labels = _labels(data, split)
    if labels is not None:
      root = root if files.is_directory(root) else base
      others = _other_splits(data, split, base, root)
      classes = _classes(data, labels if split == data.train_split else None) or labels.classes()
      return LabelledSource(root, classes, labels, others)
    if not files.is_directory(root):
      if not (allow_flat and any(_has_images(base / name) for name in files.subdirectories(base))):
        raise InputError(
          f"data.dir {str(base)!r} has no split {split!r}: expected {root}/<class>/<image>, found "
          f"{listing(files.subdirectories(base)) or 'no directories'}; data.train_split and "
          "data.eval_split give the names of the splits"
        )
      root = base
    # A validation split may lack a class; the training split still gives the right labels.
    classes = _classes(data) or of_directories(files.subdirectories(root), root)
    return FolderSource(root, classes, data.get("cache", ""))

  def class_names(self, data):
    """The names in the file of classes, else the directories, or labels, of the training images."""
    found = _classes(data)
    return None if found is None else list(found.names)


folder = Folder()


def _classes(data, labels=None):
  """The `Classes` of `data.classes`, else of the training images, else None.

  Args:
    data: config.data.
    labels: the `Labels` of the training images, if they were read already.
  """
  base = storage.path(data.dir) if data.dir else None
  train = base and base / data.train_split
  if data.classes:
    splits = {data.train_split, data.get("eval_split", data.train_split), ""} if base else ()
    roots = [base / split for split in splits if files.is_directory(base / split)]
    return read_classes(data.classes, {d for root in roots for d in files.subdirectories(root)})
  if data.get("train_labels"):
    return (labels or _labels(data, data.train_split)).classes()
  if train and files.is_directory(train):
    names = files.subdirectories(train)
    # The images may lie flat, without classes.
    return of_directories(names, train) if names else None
  return None


def _labels(data, split):
  """The `Labels` of a split, or None if directories give the classes."""
  for which in ("train", "eval"):
    key = f"{which}_labels"
    if split == data.get(f"{which}_split") and data.get(key):
      images = functools.cache(lambda: _images(data, split))  # cached: it lists all images
      return read_labels(getattr(data, key), f"data.{key}", images)
  return None


def _images(data, split):
  """The `matching.Images` that a file of labels describes."""
  base = storage.path(data.dir or "")
  root = base / split if files.is_directory(base / split) else base
  if not (data.dir and files.is_directory(root)):
    return Images([], str(root))
  return Images(files.scan(root, root).names, str(root), _other_splits(data, split, base, root))


def _other_splits(data, split, base, root):
  """Names of the other splits of the data set, whose images a file of labels may also list."""
  beside = files.subdirectories(root.parent) if root != base else ()
  names = {*beside, data.train_split, data.get("eval_split", "")}
  return frozenset(name for name in names if name not in ("", ".", split, root.name))


def _has_images(directory):
  return any(files.is_image(entry.name) for entry in files.entries(directory))


class FolderSource:
  """Images in one directory per class, and in directories below it.

  Args:
    root: directory of the class directories.
    classes: the `Classes`; some of their directories may be missing.
    cache: directory in which to cache the list of files; see `listing.list_files`.

  Raises:
    InputError: there are no images, or images outside the classes, or a class appears twice.
  """

  def __init__(self, root, classes, cache=""):
    self.classes = classes.keys
    self._root = str(root)
    label_of = classes.labels()
    pools = links.pools(self._root, label_of)
    self._files = list_files(self._root, cache, pools)
    present = [normal(name) for name, *_ in self._files.directories]
    counts = np.diff(self._files.firsts)
    unknown = [i for i, name in enumerate(present) if name not in label_of]
    if any(counts[i] for i in unknown):
      names = [present[i] for i in unknown if counts[i]]
      raise InputError(
        f"{root} has {len(names)} directories that are not among the {len(classes.keys)} classes: "
        f"{listing(names)}; add them to the classes file (data.classes) or remove them"
      )
    links.check(self._root, self._files)
    left, beside = _left_out(root, self._files)
    if not len(self._files):
      raise InputError(_no_images(root, left, beside))
    # Examples are ordered by label, but files by the names of their directories.
    known = [i for i in range(len(present)) if present[i] in label_of]
    self._directories = sorted(known, key=lambda i: label_of[present[i]])
    self._labels = [label_of[present[i]] for i in self._directories]
    self._ends = np.cumsum(counts[self._directories])
    with_images = {present[i] for i in known if counts[i]}
    empty = [key for key in classes.keys if key not in with_images]
    unknown = [*(present[i] for i in unknown), *pools]
    self.notes = classes.notes + _notes(root, left, beside, empty, unknown)
    twice = [name for name, count in collections.Counter(present).items() if count > 1]
    if twice:
      self.notes += (
        f"directories of {root} whose names differ in their form of Unicode only, and are one "
        f"class: {listing(twice)}",
      )

  @property
  def labels(self):
    """(images,) int32 labels."""
    return np.repeat(np.array(self._labels, np.int32), np.diff(self._ends, prepend=0))

  def __len__(self):
    return len(self._files)

  def __getitem__(self, index):
    place = int(np.searchsorted(self._ends, index, side="right"))
    directory = self._directories[place]
    # Both count from the end of a directory.
    number = index - self._ends[place] + self._files.firsts[directory + 1]
    name = os.fsdecode(self._files[int(number)])
    file = os.path.join(self._root, self._files.directories[directory][0], name)
    return {"image": read_image(file, _ADVICE), "label": self._labels[place], "file": file}


class LabelledSource:
  """Images whose classes are given by a file.

  Args:
    root: directory of the images, which may lie in subdirectories.
    classes: the `Classes`.
    labels: the `Labels`.
    others: names of the other splits of the data set.

  Raises:
    InputError: the labels do not match the images or the classes.
  """

  def __init__(self, root, classes, labels, others=frozenset()):
    self.classes = classes.keys
    self._root = str(root)
    found = files.scan(root, root)
    if not found.names:
      raise InputError(_no_images(root, found.left, 0))
    places, notes = labels.places(Images(found.names, self._root, others))
    there = places >= 0
    self.labels = labels.numbers(classes, there)[there]
    self._places = places[there].astype(np.int32)
    self._files = Listing.of(found)
    used = np.bincount(self.labels, minlength=len(classes.keys))
    empty = [key for key, count in zip(classes.keys, used, strict=True) if not count]
    self.notes = classes.notes + notes + _notes(root, found.left, 0, empty, [])

  def __len__(self):
    return len(self._places)

  def __getitem__(self, index):
    name = os.fsdecode(self._files[int(self._places[index])])
    file = os.path.join(self._root, name)
    return {"image": read_image(file, _ADVICE), "label": int(self.labels[index]), "file": file}


def _left_out(root, found):
  """{suffix: number of ignored files}, and the number of images outside all classes."""
  left, beside = collections.Counter(), 0
  for *_, counts in found.directories:
    left.update(counts)
  for entry in files.entries(root):
    if files.is_image(entry.name):
      beside += not files.leads_to_directory(entry)
    elif files.leads_to_directory(entry):
      left.update([f"{entry.name}/"] if files.is_system(entry.name) else [])
    elif not entry.name.startswith("."):
      left[files.suffix_of(entry.name)] += 1
  return left, beside


def _no_images(root, left, beside):
  """The message for a directory without the expected images."""
  if beside:
    return (
      f"{root} has {beside:,} images and no directories of classes: expected <class>/<image> in "
      "it, or data.train_labels and data.eval_labels, files that say the class of each image"
    )
  found = f", found {files.described(left)}" if left else ""
  return f"{root} has no images: expected <class>/*{{{','.join(files.SUFFIXES)}}} in it{found}"


def _notes(root, left, beside, empty, unknown):
  """Sentences about ignored files and missing images."""
  notes = []
  if left:
    notes.append(f"left out of {root}: {files.described(left)}")
  if beside:
    notes.append(f"left out of {root}, images in no directory of a class: {beside:,}")
  if unknown:
    notes.append(f"left out of {root}, directories that are no classes: {listing(unknown)}")
  if empty:
    notes.append(f"classes without images in {root}: {len(empty):,} ({listing(empty)})")
  return tuple(notes)
