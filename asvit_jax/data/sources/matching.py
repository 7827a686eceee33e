r"""Which image of a directory a name in a file of labels means.

A name and an image belong together where one path ends in the other, directory by directory:
`C:\data\val\a\x.jpg` is `a/x.jpg`, and `x.jpg` alone is the only image of that name, but
`cat/1.jpg` is never `dog/1.jpg`.
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
  """The images that names may mean.

  Attributes:
    names: of the images, relative to `root`.
    root: their directory.
    others: names of other splits: names that lead there mean none of these images.
  """

  names: list[str]
  root: str
  others: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Places:
  """Which images names mean.

  Attributes:
    numbers: (names,) int64 among the images, -1 for none.
    elsewhere: (names,) bool, those that mean images of another split.
    folded: (names,) bool, those whose letters are large and small otherwise than on the disk.
  """

  numbers: np.ndarray
  elsewhere: np.ndarray
  folded: np.ndarray

  @property
  def known(self):
    """(names,) bool, those that mean an image, of this split or of another."""
    return (self.numbers >= 0) | self.elsewhere


def by_line(names, count):
  """(count,) numbers among names that say the line they are in, as ImageNet's; None of others."""
  found = [_IMAGENET.search(name) for name in names]
  lines = {int(match[1]) - 1: number for number, match in enumerate(found) if match}
  if len(lines) < len(names) or min(lines) < 0 or max(lines) >= count:
    return None
  places = np.full(count, -1, np.int64)
  places[list(lines)] = list(lines.values())
  return places


def orders(names):
  """Names that numbers would sort otherwise than text does, in both orders; None if there are none.

  Only names that differ in nothing but their numbers are compared: `1.jpg`, `10.jpg`, `2.jpg`.

  Args:
    names: sorted as text.
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
  """The `Places` of names among `Images`: by path, by the end of one, or by file alone.

  Args:
    wanted: what the file says; directories may be separated as Windows does, and suffixes may be
      missing.
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
  """The search of `by_name`: images that one way has found are not offered to the next."""

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
    """Numbers of the names that mean nothing yet."""
    return np.flatnonzero((self.numbers < 0) & ~self.elsewhere).tolist()

  def take(self, letters):
    """Looks for all that is left; `letters` is a function of names that makes them comparable."""
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
    """Counts those that are left, and have the name of another split in their paths."""
    for i in self.left() if self._others else ():
      self.elsewhere[i] = bool(self._split(self._wanted[i].rpartition("/")[0]))

  def _find(self, forms_of, number_of, checked=False):
    """Takes images by forms of names; of those of a name the first counts that is an image's."""
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
    """The ends of a path, without its first part, that an image may have; the longest first."""
    parts = file.rsplit("/", self._depth)[1:]
    return ["/".join(parts[first:]) for first in range(len(parts))]

  def _is_elsewhere(self, file, count):
    """Whether a path, of which the last `count` parts are an image's, is of another split."""
    found = self._split(file.rsplit("/", count)[0])
    if found is not None or not self._others or "\0" in file:
      return bool(found)
    base = os.path.dirname(self._root)  # as it is relative to the other split
    ways = (os.path.join(base, split, file.lstrip("/")) for split in self._others.values())
    return any(map(os.path.exists, ways))

  def _split(self, directories):
    """Whether the last split that a path names is another one; None where it names none."""
    root = os.path.basename(self._root).casefold()
    for part in reversed(directories.casefold().split("/")):
      if part == root or part in self._others:
        return part != root
    return None


def _numbered(names):
  """{name: its number}, -1 where it is there twice."""
  number_of = {}
  for number, name in enumerate(names):
    number_of[name] = -1 if name in number_of else number
  return number_of
