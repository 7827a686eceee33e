"""Files with a class per line, with or without numbers, and with or without names.

The size of the file is checked first, and each line is scanned only a few times, whatever it
contains.
"""

import re
import unicodedata
from typing import NamedTuple

from asvit_jax.core.errors import InputError

LONGEST = 1000  # characters in the name of a class
MOST = 1 << 20  # classes
_LONGEST_LINE = 2 * LONGEST + 100  # a directory, a name and a label
_HEADINGS = {"class", "classes", "class_name", "classname", "name", "names", "label", "labels"}
_WORDNET = re.compile(r"n\d{8}")
# Matches a line that starts with its label, or the reverse of one that ends with it.
_NUMBERED = re.compile(
  r"(?P<label>[0-9]{1,9})(?P<between>\s*[,;:=]\s*|\s+)(?P<name>\S.*)", re.DOTALL
)
_LISTED = re.compile(r"(?P<label>[0-9]{1,9})(?P<between>[.)]\s+)(?P<name>\S.*)")  # 1. owl


def normal(name):
  """A name in the normal form of keys, NFC."""
  return unicodedata.normalize("NFC", name)


def pairs(text, what, directories):
  """[(key, name)] of the reading of the lines that matches most directories; the first of equals.

  Args:
    text: text with a class per line.
    what: a description of the file, for errors.
    directories: the existing directories.

  Raises:
    InputError: a line is empty or too long, there are too many, or the lines have numbers from 1 in
      another order.
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
  # One more line than directories, and the first line is not a directory: it is a heading.
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
  """A line with a label: the label, the separator and the name."""

  label: int
  between: str
  name: str


def _numbered(lines, pattern, way=1):
  """Matches lines with a pattern, in a direction `way`: 1, or -1 for backwards.

  Returns:
    List of `_Numbered`, the first of which may be None for a heading; None if another line does not
    match.
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
  """Ways to read the lines as [(key, name)], the likeliest first.

  Readings with duplicate keys are returned only if there are no others.

  Args:
    lines: the lines.
    first: the lines as `_numbered` with labels first, or None.
    last: the lines as `_numbered` with labels last, or None.
    decided: whether existing directories allow to choose, so that less likely readings count, too.
  """
  listed = _numbered(lines, _LISTED)
  # Numbers from 1 need a separator other than a space: "1 owl" may be a name.
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
  """The names in the order of their labels; None unless every line has its own label."""
  found = [match for match in found or () if match]
  if len(found) < 2:
    return None
  by_label = {match.label: match.name.strip("\"' ") for match in found}
  from_1 = from_1 and list(by_label) == list(range(1, len(found) + 1))
  if sorted(by_label) != list(range(from_1, from_1 + len(found))) or not all(by_label.values()):
    return None
  return [by_label[from_1 + label] for label in range(len(found))]


def _split(lines):
  """Ways to split lines into [(key, name)], the likeliest first."""
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
