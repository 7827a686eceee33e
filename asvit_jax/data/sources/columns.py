"""Finds the columns of files and of classes in a file of labels.

Headings are only hints: an `id` may be a row number or the name of a file. If several columns may
contain the files, the choice depends on which existing images they name; if they contradict each
other, the file of labels is refused.
"""

import re

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.data import files
from asvit_jax.data.sources import matching
from asvit_jax.data.sources.classes import listing

# Headings without all but letters and digits: `Class ID`, `class_id` and `ClassId` are the same.
_FILE_HEADINGS = {
  *("file", "files", "filename", "filenames", "filepath", "path", "image", "images", "imageid"),
  *("imagename", "imagepath", "imagefile", "img", "imgname", "imgpath", "id", "name"),
}
_LABEL_HEADINGS = {
  *("label", "labels", "class", "classes", "classname", "classid", "classlabel", "labelid"),
  *("labelname", "category", "categoryid", "categoryname", "target", "synset", "wnid", "breed"),
  *("species", "diagnosis", "dx", "predictionstring"),
}
_ADVICE = (
  "name the column of files 'file' and that of classes 'label' in a first line, and remove columns "
  "that are mistaken for these"
)


def choose(rows, what, images):
  """Splits rows into the column of files and the columns of classes.

  Args:
    rows: lists of texts, all of the same length.
    what: a description of the file, for errors.
    images: function that returns the existing images, `matching.Images`.

  Returns:
    Tuple of the column of files (None if there is one column only) and the columns of classes,
    which correspond one to one: lists, without the headings.

  Raises:
    InputError: columns of unknown meaning, or that contradict each other.
  """
  heading, rows = _heading(rows)
  if not rows:
    raise InputError(f"{what} has only headings: give a file and its class per line")
  columns = [list(column) for column in zip(*rows, strict=True)]
  named = [heading[i] if heading else str(i + 1) for i in range(len(columns))]
  if len(columns) == 1:
    return None, _classes(columns[0], named[0], what, heading)
  of_file = [i for i, name in enumerate(heading) if _plain(name) in _FILE_HEADINGS]
  of_label = [i for i, name in enumerate(heading) if _plain(name) in _LABEL_HEADINGS]
  of_image = [i for i, column in enumerate(columns) if all(map(_is_image, column))]
  if len(columns) == 2 and not of_file and not of_image:  # by default, the file comes first
    of_file = [0] if 0 not in of_label else [1]
  of_file += [i for i in of_image if i not in of_file + of_label]
  if not of_file or (len(columns) > 2 and not of_label):
    raise InputError(f"{what} has {len(columns)} columns, {listing(heading or rows[0])}: {_ADVICE}")
  unknown = [i for i in range(len(columns)) if i not in of_file + of_label]
  unknown = [i for i in unknown if len(set(columns[i])) == len(rows)]
  file = _of_images(of_file, unknown, of_image, columns, named, what, images)
  of_label = [i for i in of_label if i != file] or [i for i in range(len(columns)) if i != file]
  label = of_label[0]
  # A column called `id` may contain classes, but not if it has a different one for every image.
  identifies = label in of_image or (
    _plain(named[label]) in _FILE_HEADINGS - {"name"} and len(set(columns[label])) == len(rows)
  )
  if identifies:
    raise InputError(
      f"{what}: its columns {named[file]!r} and {named[label]!r} both identify the image, and none "
      "gives its class: name the column of classes 'label' in a first line"
    )
  for other in of_label[1:]:
    if not _one_to_one(columns[label], columns[other]):
      raise InputError(
        f"{what}: its columns {named[label]!r} and {named[other]!r} both look like classes, and "
        "contradict each other: remove one of them, or give it another heading"
      )
  _check_filled(columns[file], "file", what, heading)
  classes = [_classes(columns[i], named[i], what, heading) for i in of_label]
  return columns[file], *classes


def _heading(rows):
  """The headings in lower case, [] if the first row has none; and the other rows."""
  first = [cell.strip("\"' ").lower() for cell in rows[0]]
  if any(map(_is_image, rows[0])):
    return [], rows
  known = any(_plain(cell) in _FILE_HEADINGS | _LABEL_HEADINGS for cell in first)
  if not known:  # the first row names no image, but all others do
    others = rows[1:] if len(first) > 1 else ()
    known = bool(others) and any(
      all(map(_is_image, column)) for column in zip(*others, strict=True)
    )
  return (first, rows[1:]) if known else ([], rows)


def _plain(heading):
  """A heading as it is compared."""
  return re.sub(r"[\W_]", "", heading.lower())


def _is_image(text):
  return files.is_image(text.replace("\\", "/").rpartition("/")[2])


def _of_images(candidates, unknown, of_image, columns, named, what, images):
  """The column that names the images; `unknown` columns count if they name all of them."""
  if len(candidates) == 1 and (not unknown or len(columns) == 2):
    return candidates[0]
  there = images()
  found = {i: matching.by_name(columns[i], there) for i in [*candidates, *unknown]}
  least = {i: len(columns[i]) if i in unknown else 1 for i in found}
  places = {i: found[i].numbers for i in found if found[i].known.sum() >= least[i]}
  if not places:
    return candidates[0]  # the caller reports that no image exists, with the names
  count = {i: int((found >= 0).sum()) for i, found in places.items()}
  best = max(places, key=lambda i: (count[i], i in of_image))
  whole = [i for i in places if i in of_image and 2 * count[i] > count[best]]
  if len(whole) == 1:  # a full file name is unambiguous
    return whole[0]
  for other, found in places.items():
    both = (found >= 0) & (places[best] >= 0)
    if (found != places[best])[both].any():
      raise InputError(
        f"{what}: its columns {named[best]!r} and {named[other]!r} both name images of "
        f"{there.root}, but different ones: rename or remove the column that does not name files"
      )
  return best


def _one_to_one(first, second):
  return len(set(first)) == len(set(second)) == len(set(zip(first, second, strict=True)))


def _classes(column, name, what, heading):
  """The classes of a column; in Kaggle's "PredictionString", boxes follow the class."""
  _check_filled(column, "class", what, heading)
  return [cell.split()[0] for cell in column] if _plain(name) == "predictionstring" else column


def _check_filled(column, kind, what, heading):
  empty = np.flatnonzero([not cell for cell in column]).tolist()
  if empty:
    raise InputError(
      f"{what} has no {kind} in row {empty[0] + 1 + bool(heading)}, and in {len(empty)} rows in "
      "all: complete or remove them"
    )
