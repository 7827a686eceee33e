r"""Finds the images that the names in a file of labels refer to.

A name refers to an image if one path ends with the other, compared by directories:
`C:\data\val\a\x.jpg` is `a/x.jpg`, and `x.jpg` is the only image of that name, but `cat/1.jpg` is
never `dog/1.jpg`.
"""

import dataclasses
import functools
import os
import re

import numpy as np

from asvit_jax.data.sources.classes import normal

_IMAGENET = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+$")
_DIGITS = re.compile("[0-9]+")


@dataclasses.dataclass(frozen=True)
class Images:
  """The images that names may refer to.

  Attributes:
    names: paths of the images, relative to `root`.
    root: directory of the images.
    others: names of other splits; a path into one of them refers to none of these images.
  """

  names: list[str]
  root: str
  others: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Places:
  """The images that names refer to.

  Attributes:
    numbers: (names,) int64 indices of images, -1 for none.
    elsewhere: (names,) bool, whether the name refers to an image of another split.
    folded: (names,) bool, whether the name differs in upper and lower case from the file's.
  """

  numbers: np.ndarray
  elsewhere: np.ndarray
  folded: np.ndarray

  @property
  def known(self):
    """(names,) bool, whether a name refers to an image, of this split or another."""
    return (self.numbers >= 0) | self.elsewhere


def by_line(names, count):
  """(count,) indices by the line numbers in ImageNet's file names; None for other names."""
  found = [_IMAGENET.search(name) for name in names]
  lines = {int(match[1]) - 1: number for number, match in enumerate(found) if match}
  if len(lines) < len(names) or min(lines) < 0 or max(lines) >= count:
    return None
  places = np.full(count, -1, np.int64)
  places[list(lines)] = list(lines.values())
  return places


def orders(names):
  """Names whose order by number differs from their order as text, in both orders; None if none do.

  Only names that differ in their numbers alone are compared: `1.jpg`, `10.jpg`, `2.jpg`.

  Args:
    names: names, sorted as text.
  """
  last = {}
  for name in names:
    stem = os.path.splitext(name)[0].casefold()
    form, key = _DIGITS.sub("0", stem), tuple(map(int, _DIGITS.findall(stem)))
    if last.get(form, key) > key:
      break
    last[form] = key
  else:
    return None
  alike = [n for n in names if _DIGITS.sub("0", os.path.splitext(n)[0].casefold()) == form]
  return alike, sorted(alike, key=lambda name: tuple(map(int, _DIGITS.findall(name))))


def by_name(wanted, images):
  """The `Places` of names among `Images`: by path, by the end of a path, or by file name alone.

  Args:
    wanted: the names in the file; they may have Windows' separators and lack suffixes.
    images: the `Images`.
  """
  search = _Search([normal(file.replace("\\", "/")) for file in wanted], images)
  search.take(str)
  exactly = search.numbers >= 0
  if search.left():
    search.take(str.casefold)
  search.leave_out()
  return Places(search.numbers, search.elsewhere, (search.numbers >= 0) & ~exactly)


class _Search:
  """The search behind `by_name`: an image found in one way is not offered to the next way."""

  def __init__(self, wanted, images):
    self._wanted = wanted
    self._names = [normal(name) for name in images.names]
    self._depth = 1 + max((name.count("/") for name in self._names), default=0)
    self._root = normal(os.path.abspath(images.root))
    self._others = {normal(name).casefold(): name for name in images.others}
    self._taken = np.zeros(len(self._names), bool)
    self.numbers = np.full(len(wanted), -1, np.int64)
    self.elsewhere = np.zeros(len(wanted), bool)

  def left(self):
    """Indices of the names without an image so far."""
    return np.flatnonzero((self.numbers < 0) & ~self.elsewhere).tolist()

  def take(self, letters):
    """Searches for all remaining names; `letters` makes names comparable (`str.casefold`)."""
    names = list(map(letters, self._names))
    known = names, [os.path.splitext(name)[0] for name in names]
    root = letters(self._root)
    prefixes = (f"{root}/", "./", f"{os.path.basename(root)}/")
    wanted = {i: letters(self._wanted[i]) for i in self.left()}
    bare = {i: functools.reduce(str.removeprefix, prefixes, file) for i, file in wanted.items()}
    whole = [_numbered(found) for found in known]
    for files in (wanted, bare):
      for number_of in whole:
        self._find({i: [files[i]] for i in self.left()}, number_of)
    self._close()
    for number_of in whole:
      self._find({i: self._ends(bare[i]) for i in self.left()}, number_of, checked=True)
    self._close()
    for slashes in sorted({bare[i].count("/") for i in self.left()}, reverse=True):
      if slashes >= self._depth:
        continue
      for found in known:
        ends = _numbered("/".join(name.rsplit("/", slashes + 1)[-slashes - 1 :]) for name in found)
        few = (i for i in self.left() if bare[i].count("/") == slashes)
        self._find({i: [bare[i]] for i in few}, ends)
      self._close()

  def leave_out(self):
    """Marks the remaining names whose paths contain the name of another split."""
    for i in self.left() if self._others else ():
      self.elsewhere[i] = bool(self._split(self._wanted[i].rpartition("/")[0]))

  def _find(self, forms_of, number_of, checked=False):
    """Assigns images by the first form of each name that is an image's."""
    for i, forms in forms_of.items():
      form = next((form for form in forms if form in number_of), None)
      if form is None:
        continue
      if checked and self._is_elsewhere(self._wanted[i], form.count("/") + 1):
        self.elsewhere[i] = True
      elif number_of[form] >= 0 and not self._taken[number_of[form]]:
        self.numbers[i] = number_of[form]

  def _close(self):
    self._taken[self.numbers[self.numbers >= 0]] = True

  def _ends(self, file):
    """The ends of a path, without its first part, that an image may have; longest first."""
    parts = file.rsplit("/", self._depth)[1:]
    return ["/".join(parts[first:]) for first in range(len(parts))]

  def _is_elsewhere(self, file, count):
    """Whether a path whose last `count` parts match an image belongs to another split."""
    found = self._split(file.rsplit("/", count)[0])
    if found is not None or not self._others or "\0" in file:
      return bool(found)
    base = os.path.dirname(self._root)  # paths may be relative to the other split
    ways = (os.path.join(base, split, file.lstrip("/")) for split in self._others.values())
    return any(map(os.path.exists, ways))

  def _split(self, directories):
    """Whether the last split in a path is another one; None if the path contains no split."""
    root = os.path.basename(self._root).casefold()
    for part in reversed(directories.casefold().split("/")):
      if part == root or part in self._others:
        return part != root
    return None


def _numbered(names):
  """{name: index}, with -1 for names that appear twice."""
  number_of = {}
  for number, name in enumerate(names):
    number_of[name] = -1 if name in number_of else number
  return number_of
