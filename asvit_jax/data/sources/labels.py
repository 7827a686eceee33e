"""Files that say which class an image is of: for images without a directory a class.

| file | what it has |
|---|---|
| `val.txt` | a file and its class a line, with a space, a tab, a comma or a semicolon between |
| a CSV with headings | a column of files and one of classes, by what they are called |
| a class a line | for the images in the order of their names |
| `ILSVRC2012_validation_ground_truth.txt` | of ImageNet's devkit, with its `meta.mat` beside it |

A class is a directory of the training images, a name of `data.classes`, or a label from 0.
"""

import csv
import dataclasses
import os
import re

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.data.sources.classes import Classes, listing, normal, ordered, read_text

_FILE_HEADINGS = {
  *("file", "files", "filename", "file_name", "filepath", "file_path", "path", "image", "images"),
  *("image_id", "imageid", "image_name", "image_path", "img", "id", "name"),
}
_LABEL_HEADINGS = {
  *("label", "labels", "class", "classes", "class_name", "classname", "class_id", "category"),
  *("target", "synset", "wnid", "breed", "predictionstring"),
}
_IMAGENET = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+$")


@dataclasses.dataclass(frozen=True)
class Labels:
  """What a file of labels says.

  Attributes:
    path: of the file.
    key: of the config that names it.
    files: of the images, or None where it has a class a line.
    values: their classes, as they stand there.
  """

  path: str
  key: str
  files: list[str] | None
  values: list[str]

  @property
  def what(self):
    """What to call it."""
    return f"{self.key} {str(self.path)!r}"

  def classes(self):
    """The `Classes` that it has by itself, where nothing else says which there are."""
    found = _devkit(self)
    if found is not None:
      return Classes(found[0], found[1])
    there = set(self.values)
    if all(re.fullmatch("[0-9]+", value) for value in there):
      if self.files is None and "0" not in there:
        raise InputError(_unknown_numbers(self))
      there = map(str, range(1 + max(map(int, there))))
    keys = tuple(ordered(there))
    return Classes(keys, keys)

  def numbers(self, classes):
    """(images,) int32 labels.

    Args:
      classes: the `Classes` that there are.

    Raises:
      InputError: a class that is not among them.
    """
    values, count = self.values, len(classes.keys)
    found = _devkit(self)
    if found is not None:
      values = [found[2][int(value) - 1] for value in values]
    there = set(values)
    for known in (classes.keys, tuple(map(normal, classes.names))):
      label_of = {name: label for label, name in enumerate(known)}
      if len(label_of) == count and there <= label_of.keys():
        return np.array([label_of[value] for value in values], np.int32)
    if all(re.fullmatch("[0-9]+", value) for value in there):
      labels = np.array(values, np.int64)
      if self.files is None and labels.min() > 0 and found is None:
        raise InputError(_unknown_numbers(self))
      if labels.max() < count:
        return labels.astype(np.int32)
      raise InputError(
        f"{self.what} has labels from {labels.min()} to {labels.max()}, and there are {count} "
        f"classes: expected 0 to {count - 1}, or the names of the classes"
      )
    unknown = sorted(there - set(classes.keys))
    raise InputError(
      f"{self.what} has {len(unknown)} classes that are not among the {count} of the data: "
      f"{listing(unknown)}; give data.classes, a file with all of them in label order"
    )

  def places(self, names, root):
    """Which of the images each label is for.

    Args:
      names: of the images, relative to `root`, sorted.
      root: their directory.

    Returns:
      (labels,) int64 numbers of images, -1 where it is not there, and notes about what is left out.

    Raises:
      InputError: another number of labels than of images, an image that is named twice, or none
        that is there.
    """
    if self.files is None:
      places, missing = _places_by_line(names, len(self.values)), len(self.values) - len(names)
      if places is not None and missing:
        return places, (f"images of {self.what} that are not there: {missing:,}",)
      if missing:
        raise InputError(
          f"{self.what} has {len(self.values):,} labels, and {root} {len(names):,} images: a file "
          "without names of files needs one for each, in the order of the images' names"
        )
      return np.arange(len(names)), ()
    places = _places([normal(file.replace("\\", "/")) for file in self.files], names, root)
    missing = [file for file, place in zip(self.files, places, strict=True) if place < 0]
    if len(missing) == len(places):
      raise InputError(
        f"none of the {len(places):,} files of {self.what} is in {root}, such as {missing[0]}"
      )
    there, counts = np.unique(places[places >= 0], return_counts=True)
    if counts.max() > 1:
      twice = [names[place] for place in there[counts > 1].tolist()]
      raise InputError(f"{self.what} names {len(twice)} images more than once: {listing(twice)}")
    notes = []
    if missing:
      notes.append(
        f"files of {self.what} that are not there: {len(missing):,} ({listing(missing)})"
      )
    if len(there) < len(names):
      rest = np.setdiff1d(np.arange(len(names)), there)
      left = listing(names[place] for place in rest.tolist())
      notes.append(f"left out of {root}, images not in {self.what}: {len(rest):,} ({left})")
    return places, tuple(notes)


def read_labels(file, key):
  """The `Labels` of a file.

  Args:
    file: path.
    key: of the config that names it.

  Raises:
    InputError: it cannot be read, or its columns are not known.
  """
  text = read_text(file, key, "a text or CSV file of images and their classes")
  lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
  if not lines:
    raise InputError(f"{key} {str(file)!r} is empty: give a file and its class a line")
  rows = [[cell.strip() for cell in row] for row in _rows(lines)]
  width = len(rows[0])
  wrong = [number for number, row in enumerate(rows, 1) if len(row) != width]
  if wrong:
    raise InputError(
      f"{key} {str(file)!r}: row {wrong[0]} has {len(rows[wrong[0] - 1])} cells, the first "
      f"{width}: give a file and its class a line"
    )
  heading = [cell.lower() for cell in rows[0]]
  of_file = [i for i, cell in enumerate(heading) if cell in _FILE_HEADINGS]
  of_label = [i for i, cell in enumerate(heading) if cell in _LABEL_HEADINGS]
  if of_file or of_label:
    rows = rows[1:]
  if width == 1:
    return Labels(file, key, None, [normal(row[0]) for row in rows])
  if width == 2:
    label = of_label[0] if of_label else 1 - of_file[0] if of_file else 1
    columns = 1 - label, label
  elif of_file and of_label:
    columns = of_file[0], of_label[0]
  else:
    raise InputError(
      f"{key} {str(file)!r} has {width} columns, {listing(rows[0])}: call that of the files "
      "'file' and that of their classes 'label' in a first line"
    )
  values = [normal(row[columns[1]]) for row in rows]
  if heading[columns[1]] == "predictionstring":  # Kaggle's: the class, and boxes
    values = [value.split()[0] for value in values]
  return Labels(file, key, [row[columns[0]] for row in rows], values)


def _rows(lines):
  for delimiter in "\t,;":
    if all(delimiter in line for line in lines):
      return csv.reader(lines, delimiter=delimiter)
  # Names of files may have spaces; those of classes may not, where a space is between.
  rows = [line.rsplit(maxsplit=1) for line in lines]
  return rows if all(len(row) == 2 for row in rows) else [[line] for line in lines]


def _places_by_line(names, count):
  """(count,) numbers among names that say the line they are in, as ImageNet's; None of others."""
  found = [_IMAGENET.search(name) for name in names]
  lines = {int(match[1]) - 1: number for number, match in enumerate(found) if match}
  if len(lines) < len(names) or min(lines) < 0 or max(lines) >= count:
    return None
  places = np.full(count, -1, np.int64)
  places[list(lines)] = list(lines.values())
  return places


def _places(wanted, names, root):
  """(wanted,) int64 numbers among the names, -1 for none: by path, or by file alone."""
  places = np.full(len(wanted), -1, np.int64)
  prefixes = (f"{os.path.abspath(root)}/", "./", f"{os.path.basename(root)}/")
  for i, file in enumerate(wanted):
    for prefix in prefixes:
      file = file.removeprefix(prefix)
    wanted[i] = file
  for ours, theirs in (
    (lambda name: name, lambda file: file),
    (lambda name: os.path.splitext(name)[0], lambda file: file),
    (os.path.basename, os.path.basename),
    (lambda name: os.path.splitext(os.path.basename(name))[0], os.path.basename),
  ):
    left = np.flatnonzero(places < 0).tolist()
    if not left:
      break
    number_of = {}
    for number, name in enumerate(names):
      name = normal(ours(name))
      number_of[name] = -1 if name in number_of else number
    places[left] = [number_of.get(theirs(wanted[i]), -1) for i in left]
  return places


def _devkit(labels):
  """(keys, names, key of each of its numbers from 1) of ImageNet's devkit; None of other files."""
  if storage.in_bucket(labels.path):
    return None
  meta = storage.path(labels.path).parent / "meta.mat"
  numbered = all(re.fullmatch("[1-9][0-9]*", value) for value in set(labels.values))
  if labels.files is not None or not numbered or not meta.is_file():
    return None
  from scipy.io import loadmat  # nothing else pays for it

  try:
    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    leaves = synsets[synsets["num_children"] == 0]  # the others are groups of classes
    leaves = leaves[np.argsort(leaves["ILSVRC2012_ID"].astype(int))]
    by_number = [str(key) for key in leaves["WNID"]]
    name_of = dict(zip(by_number, map(str, leaves["words"]), strict=True))
  except (OSError, ValueError, KeyError, IndexError, NotImplementedError) as error:
    raise InputError(f"{meta} is not that of ImageNet's devkit ({error}): bring it back") from error
  most = max(map(int, labels.values))
  if most > len(by_number):
    raise InputError(f"{labels.what} has the number {most}, and {meta} {len(by_number)} classes")
  keys = sorted(by_number)
  return tuple(keys), tuple(name_of[key] for key in keys), by_number


def _unknown_numbers(labels):
  return (
    f"{labels.what} has numbers from 1, which are the order of no list of classes: ImageNet's "
    "devkit has what they mean in its meta.mat, put it beside the file; other labels count from 0"
  )
