"""Files with a class a line: numbered or not, with or without names beside the directories.

All is bounded before it is looked at closely, and no line is looked at more than a few times.
"""

import re
import unicodedata
from typing import NamedTuple

from asvit_jax.core.errors import InputError

LONGEST = 1000  # characters of a class
MOST = 1 << 20  # classes
_LONGEST_LINE = 2 * LONGEST + 100  # a directory, a name and a label
_HEADINGS = {"class", "classes", "class_name", "classname", "name", "names", "label", "labels"}
_WORDNET = re.compile(r"n\d{8}")
# Of a line, or backwards of one that ends with its label.
_NUMBERED = re.compile(
  r"(?P<label>[0-9]{1,9})(?P<between>\s*[,;:=]\s*|\s+)(?P<name>\S.*)", re.DOTALL
)
_LISTED = re.compile(r"(?P<label>[0-9]{1,9})(?P<between>[.)]\s+)(?P<name>\S.*)")  # 1. owl


def normal(name):
  """A name in the normal form that keys have."""
  return unicodedata.normalize("NFC", name)


def pairs(text, what, directories):
  """[(key, name)] of the reading that finds most of the directories; of equal ones the first.

  Args:
    text: with a class a line.
    what: the file is, for errors.
    directories: those that are there.

  Raises:
    InputError: an empty line, one that is too long, too many of them, or numbers from 1 in another
      order than the lines.
  """
  lines = re.split(r"\r\n|\r|\n", text.rstrip())
  if len(lines) > MOST:
    raise InputError(f"{what} has {len(lines):,} lines, expected at most {MOST:,}, a class each")
  lines = [line.strip() for line in lines]
  for number, line in enumerate(lines, 1):
    if not line:
      raise InputError(
        f"{what} has no class on line {number}: the line number is the label, so no line may be "
        "empty"
      )
    if len(line) > _LONGEST_LINE:
      raise InputError(
        f"{what} has a name of up to {len(line):,} characters on line {number}, expected at most "
        f"{LONGEST:,}"
      )
  there = {normal(name) for name in directories}
  # As many directories as lines but the first, and none of its name: a heading.
  heading = lines[0].strip("\"' ").lower() in _HEADINGS and normal(lines[0]) not in there
  if there and heading and len(there) == len(lines) - 1:
    lines = lines[1:]
  first, last = _numbered(lines, _NUMBERED), _numbered(lines, _NUMBERED, -1)
  readings = _readings(lines, first, last, bool(there))
  best = readings[0]
  if there:
    best = max(readings, key=lambda pairs: len(there & {normal(key) for key, _ in pairs}))
  if [key for key, _ in best] != lines:
    for found in (last, first):
      labels = [match.label for match in found or () if match]
      if labels != sorted(labels) == list(range(1, len(lines) + 1)):
        raise InputError(
          f"{what} has the numbers 1 to {len(lines)}, in another order than its lines: labels "
          "count from 0; number the classes so, or leave the numbers out"
        )
  return best


class _Numbered(NamedTuple):
  """A line with a label: that, what stands between, and the name."""

  label: int
  between: str
  name: str


def _numbered(lines, pattern, way=1):
  """What lines are by a pattern, read in a way: 1, or -1 for backwards.

  Returns:
    List of `_Numbered`, of which the first may be None, for a heading; None where others are.
  """
  found = []
  for line in lines:
    match = pattern.fullmatch(line[::way])
    if match is None and found:
      return None
    found.append(
      match
      and _Numbered(int(match["label"][::way]), match["between"].strip(), match["name"][::way])
    )
  return found


def _readings(lines, first, last, decided):
  """Ways to read lines as [(key, name)], the likeliest first; none has a key twice, if one can.

  Args:
    lines: texts.
    first: them as `_numbered` with their labels first, or None.
    last: with their labels last, or None.
    decided: there are directories, which decide what is less likely.
  """
  listed = _numbered(lines, _LISTED)
  # From 1 is a list with marks between: a space and a number may be a name's.
  marked = first is not None and all(match is None or match.between for match in first)
  numbered = [_names(last), _names(first, from_1=marked), _names(listed, from_1=True)]
  less_likely = [_names(first, from_1=True)] if decided else []
  readings, differing = [], []
  for found in filter(None, (*numbered, lines, *less_likely)):
    for pairs in _split(found):
      readings.append(pairs)
      if _all_differ(key for key, _ in pairs):
        differing.append(pairs)
        if not decided:
          return differing
  return differing or readings


def _names(found, from_1=False):
  """The names in the order of their labels; None of lines that do not give each its own."""
  found = [match for match in found or () if match]
  if len(found) < 2:
    return None
  by_label = {match.label: match.name.strip("\"' ") for match in found}
  from_1 = from_1 and list(by_label) == list(range(1, len(found) + 1))
  if sorted(by_label) != list(range(from_1, from_1 + len(found))) or not all(by_label.values()):
    return None
  return [by_label[from_1 + label] for label in range(len(found))]


def _split(lines):
  """Ways to take lines apart into [(key, name)], the likeliest first."""
  words = [(line.split()[0], line.split(maxsplit=1)[-1]) for line in lines]
  if any("\t" in line for line in lines):
    cells = [[cell.strip() for cell in line.split("\t", 1)] for line in lines]
    return [[(cell[0], cell[-1]) for cell in cells]]
  if all(_WORDNET.fullmatch(key) for key, _ in words):
    return [words]
  return [[(line, line) for line in lines], words]


def _all_differ(values):
  values = list(values)
  return len(set(values)) == len(values)
