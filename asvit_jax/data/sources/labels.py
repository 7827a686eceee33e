"""Files of labels: they give the class of each image where directories do not.

| file | content |
|---|---|
| `val.txt` | a file and its class per line, separated by a space, tab, comma or semicolon |
| a CSV with headings | a column of files and one of classes, recognised by their headings |
| a class per line | for the images in the order of their names |
| `ILSVRC2012_validation_ground_truth.txt` | of ImageNet's devkit, with its `meta.mat` beside it |

A class is a directory of the training images, a name of `data.classes`, or a label from 0.
"""

import dataclasses
import decimal
import re

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.data.sources import columns, matching, tables
from asvit_jax.data.sources.classes import LONGEST, Classes, listing, normal, ordered, read_text

_MOST_BYTES = 512 << 20
_MOST_CLASSES = 100_000  # that numeric labels may imply, or twice the number of images if more
# A number, also in the forms in which spreadsheets and pandas write whole numbers.
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,2})?")


@dataclasses.dataclass(frozen=True)
class Labels:
  """The content of a file of labels.

  Attributes:
    path: path of the file.
    key: the config's key that names it.
    files: names of the image files, or None if the file has classes only.
    values: the images' classes, as written in the file.
    others: further columns that express the same classes in other words.
  """

  path: str
  key: str
  files: list[str] | None
  values: list[str]
  others: tuple[list[str], ...] = ()

  @property
  def what(self):
    """A description of the file, for messages."""
    return f"{self.key} {str(self.path)!r}"

  def classes(self):
    """The `Classes` that the labels imply, for use if nothing else defines the classes.

    Raises:
      InputError: numbers that cannot be labels from 0.
    """
    found = _devkit(self)
    if found is not None:
      return Classes(found[0], found[1])
    there = set(self.values)
    numbers = self._whole_numbers(there)
    if numbers is not None:
      self._check_from_zero(set(numbers.values()), whole=True)
      largest = max(numbers, key=numbers.get)
      most = numbers[largest]
      if most >= max(_MOST_CLASSES, 2 * len(self.values)):
        raise InputError(
          f"{self.what} has labels up to {largest}, for {len(self.values):,} images: labels are "
          "numbers from 0, below the number of classes; if these are names of classes, list them "
          "in a file and give that as data.classes"
        )
      there = map(str, range(1 + most))
    keys = tuple(ordered(there))
    return Classes(keys, keys)

  def numbers(self, classes, there=...):
    """(images,) int32 labels.

    Args:
      classes: the `Classes`.
      there: (images,) bool, which images exist; all by default.

    Raises:
      InputError: a label is not among the classes.
    """
    found = _devkit(self)
    values = self.values if found is None else [found[2][int(value) - 1] for value in self.values]
    for known in (classes.keys, tuple(map(normal, classes.names))):
      label_of = {name: label for label, name in enumerate(known)}
      for column in (values, *self.others):
        if len(label_of) == len(classes.keys) and label_of.keys() >= set(column):
          return np.array([label_of[value] for value in column], np.int32)
    return self._numbered(classes.keys, values, there)

  def _numbered(self, keys, values, there):
    """Does the work of `numbers` for values that are numbers but not keys of the classes."""
    number_of = self._whole_numbers(set(values))
    if number_of is None:
      unknown = sorted(set(values) - set(keys))
      raise InputError(
        f"{self.what} has {len(unknown)} classes that are not among the {len(keys)} of the data: "
        f"{listing(unknown)}; give data.classes, a file with all of them in label order"
      )
    label_of = {key: label for label, key in enumerate(keys)}
    if {str(number) for number in number_of.values()} <= label_of.keys():
      return np.array([label_of[str(number_of[value])] for value in values], np.int32)
    least, most = min(number_of.values()), max(number_of.values())
    if self.files is None and least > 0:
      raise InputError(_unknown_numbers(self))
    if least < 0 or most >= len(keys):
      raise InputError(
        f"{self.what} has labels from {least} to {most}, and there are {len(keys)} "
        f"classes: expected 0 to {len(keys) - 1}, or the names of the classes"
      )
    if all(re.fullmatch("[0-9]+", key) for key in keys):
      raise InputError(
        f"{self.what} has labels from {least} to {most}, but the classes are other numbers: "
        f"{listing(keys)}; write these in the file"
      )
    labels = np.array([number_of[value] for value in values], np.int32)
    self._check_from_zero(set(labels[there].tolist()))
    return labels

  def _whole_numbers(self, values):
    """{value: whole number}, or None if some values are not numbers.

    Raises:
      InputError: all values are numbers, but not all are whole.
    """
    if not all(map(_NUMBER.fullmatch, values)):
      return None
    number_of = {value: decimal.Decimal(value) for value in values}
    broken = sorted(value for value, number in number_of.items() if number != int(number))
    if broken:
      raise InputError(
        f"{self.what} has labels that are not whole numbers: {listing(broken)}; expected numbers "
        "from 0, or the names of the classes"
      )
    return {value: int(number) for value, number in number_of.items()}

  def _check_from_zero(self, numbers, whole=False):
    """Raises InputError for numbers that most likely count from 1, or cannot be labels.

    Args:
      numbers: set of numbers.
      whole: nothing else defines the classes: the numbers may have gaps, but a set that starts at
        1 most likely counts from 1.
    """
    if self.files is None and 0 not in numbers:
      raise InputError(_unknown_numbers(self))
    if min(numbers) < 0:
      raise InputError(
        f"{self.what} has the label {min(numbers)}: labels count from 0; remove the rows of images "
        "whose class is not known"
      )
    each = numbers == set(range(1, len(numbers) + 1))
    if len(numbers) > 1 and (each or (whole and min(numbers) == 1)):
      raise InputError(
        f"{self.what} has {'each label' if each else 'labels'} from {min(numbers)} to "
        f"{max(numbers)}, and no 0: labels count from 0. If these count "
        "from 1, subtract 1 from each; if the first class has no images, write "
        "the names of the classes instead of numbers"
      )

  def places(self, images):
    """Finds the image of each label.

    Args:
      images: the `matching.Images`, sorted.

    Returns:
      (labels,) int64 indices of images, -1 for missing ones, and notes about what is ignored.

    Raises:
      InputError: the numbers of labels and images differ, an image is named twice, or none of the
        images exists.
    """
    if self.files is None:
      return self._in_order(images)
    names, root = images.names, images.root
    found = matching.by_name(self.files, images)
    places, notes = found.numbers, []
    if (places < 0).all():
      of_others = " (others of its names are of other splits)" if found.elsewhere.any() else ""
      first = self.files[int(np.argmin(found.elsewhere))]
      raise InputError(
        f"none of the {len(places):,} files of {self.what} is in {root}, such as {first}{of_others}"
      )
    there, counts = np.unique(places[places >= 0], return_counts=True)
    if counts.max() > 1:
      twice = [names[place] for place in there[counts > 1].tolist()]
      raise InputError(f"{self.what} names {len(twice)} images more than once: {listing(twice)}")
    for rows, text in (
      ((places < 0) & ~found.elsewhere, "files of {} that are not there"),
      (found.elsewhere, "files of {} that are of other splits, and left out"),
      (found.folded, "files of {} with other small and large letters than on the disk"),
    ):
      said = [self.files[row] for row in np.flatnonzero(rows).tolist()]
      if said:
        notes.append(f"{text.format(self.what)}: {len(said):,} ({listing(said)})")
    if len(there) < len(names):
      rest = np.setdiff1d(np.arange(len(names)), there)
      left = listing(names[place] for place in rest.tolist())
      notes.append(f"left out of {root}, images not in {self.what}: {len(rest):,} ({left})")
    return places, tuple(notes)

  def _in_order(self, images):
    """Does the work of `places` for a file with a class per line."""
    names, root = images.names, images.root
    places, missing = matching.by_line(names, len(self.values)), len(self.values) - len(names)
    if places is not None and missing:
      return places, (f"images of {self.what} that are not there: {missing:,}",)
    if missing:
      raise InputError(
        f"{self.what} has {len(self.values):,} labels, and {root} {len(names):,} images: a file "
        "without names of files needs one for each, in the order of the images' names"
      )
    orders = matching.orders(names)
    if orders is not None:
      raise InputError(
        f"{self.what} has no names of files, and the images of {root} have two orders: as text "
        f"{listing(orders[0])}, by their numbers {listing(orders[1])}; give the file of each class "
        "beside it"
      )
    return np.arange(len(names)), ()


def read_labels(file, key, images=lambda: matching.Images([], "")):
  """Reads the `Labels` of a file.

  Args:
    file: path.
    key: the config's key that names it.
    images: function that returns the existing images, `matching.Images`; called only if headings
      do not tell which column contains the files.

  Raises:
    InputError: the file cannot be read, or the meaning of its columns is unknown.
  """
  text = read_text(file, key, tables.EXPECTED, _MOST_BYTES)
  what = f"{key} {str(file)!r}"
  rows = tables.rows(text, what, images)
  found, *classes = columns.choose(rows, what, images)
  longest = max(classes[0], key=len)
  if len(longest) > LONGEST:
    raise InputError(
      f"{what} has a class of {len(longest):,} characters, expected at most {LONGEST:,}: give "
      f"{tables.EXPECTED}"
    )
  values, *others = [list(map(normal, column)) for column in classes]
  return Labels(file, key, found, values, tuple(others))


def _devkit(labels):
  """(keys, names, keys by number from 1) of ImageNet's devkit; None for any other file."""
  if storage.in_bucket(labels.path):
    return None
  meta = storage.path(labels.path).parent / "meta.mat"
  numbered = all(re.fullmatch("[1-9][0-9]{0,8}", value) for value in set(labels.values))
  if labels.files is not None or not numbered or not meta.is_file():
    return None
  from scipy.io import loadmat  # imported only when needed

  try:
    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    leaves = synsets[synsets["num_children"] == 0]  # synsets with children are groups of classes
    leaves = leaves[np.argsort(leaves["ILSVRC2012_ID"].astype(int))]
    by_number = [str(key) for key in leaves["WNID"]]
    name_of = dict(zip(by_number, map(str, leaves["words"]), strict=True))
  except Exception as error:  # a damaged file raises errors of many types
    raise InputError(f"{meta} is not that of ImageNet's devkit ({error}): bring it back") from error
  most = max(map(int, labels.values))
  if most > len(by_number):
    raise InputError(f"{labels.what} has the number {most}, and {meta} {len(by_number)} classes")
  keys = sorted(by_number)
  return tuple(keys), tuple(name_of[key] for key in keys), by_number


def _unknown_numbers(labels):
  return (
    f"{labels.what} has numbers from 1, whose meaning is unknown: ImageNet's devkit explains them "
    "in its meta.mat, put it beside the file; other labels count from 0"
  )
