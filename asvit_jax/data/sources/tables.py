"""Reads the rows of a table of images and classes, whatever separates its columns."""

import csv
import re

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.data import files
from asvit_jax.data.sources import matching
from asvit_jax.data.sources.classes import listing

EXPECTED = "a text or CSV file of images and their classes"
_READ = (
  "give a file and its class per line, separated by a comma, a semicolon, a tab or a space, or a "
  "class per line"
)
_SUFFIX = "|".join(suffix[1:] for suffix in files.SUFFIXES)
_NAME = re.compile(rf"\.(?:{_SUFFIX})(?!\w)", re.IGNORECASE)
_SEPARATED = re.compile(rf"\.(?:{_SUFFIX})[\"']?[,;|:=\t]", re.IGNORECASE)
# The start of JSON, JSON Lines, XML or HTML; file names may start with a bracket, too.
_OTHER_FORMAT = re.compile(r"[{\[]\s*[\"'{\[]|[{\[]$|<[\w?!/]")
_EXCEL = re.compile(r'"?sep=.?"?', re.IGNORECASE)  # Excel's line that declares the separator
_NUMBERS = re.compile(r"[-+0-9.eE]+(?:\s+[-+0-9.eE]+)+")


def rows(text, what, images):
  """The rows of a text: lists of cells, all of the same length.

  Args:
    text: content of the file.
    what: a description of the file, for errors.
    images: function that returns the existing images, `matching.Images`; called only if spaces
      can be read in several ways.

  Raises:
    InputError: the text is empty, not a table, or in a format that is not supported.
  """
  lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
  if lines and _EXCEL.fullmatch(lines[0]):
    lines = lines[1:]
  if not lines:
    raise InputError(f"{what} is empty: give a file and its class per line")
  if "\0" in text:
    raise InputError(f"{what} has zero bytes: give {EXPECTED}, in UTF-8")
  if _OTHER_FORMAT.match(lines[0]):
    raise InputError(f"{what} looks like JSON, JSON Lines or XML, which are not read: {_READ}")
  try:
    found = [[cell.strip() for cell in row] for row in _cells(lines, what, images)]
  except csv.Error as error:  # for example a cell of excessive length
    raise InputError(f"{what} is not a table ({error}): give {EXPECTED}") from error
  width = len(found[0])
  wrong = [number for number, row in enumerate(found, 1) if len(row) != width]
  if wrong:
    raise InputError(
      f"{what}: row {wrong[0]} has {len(found[wrong[0] - 1])} cells, the first {width}: give a "
      "file and its class per line"
    )
  return found


def _cells(lines, what, images):
  for delimiter in "\t,;":
    if all(delimiter in line for line in lines):
      return csv.reader(lines, delimiter=delimiter)
  _check_separators(lines, what)
  ways = [_after_suffix(lines), [line.rsplit(maxsplit=1) for line in lines]]
  ways += [[line.split(maxsplit=1) for line in lines]]
  ways = [[[cell.strip("\"'") for cell in row] for row in way] for way in ways if way]
  ways = [way for way in ways if all(len(row) == 2 for row in way)]
  if not ways:
    _check_classes(lines, what)
    return [[line] for line in lines]
  ways = [way for way in ways if not any(map(_has_numbers, way))] or ways
  if all(way == ways[0] for way in ways[1:]):
    return ways[0]
  there = images()
  return max(ways, key=lambda way: _found(way, there))  # the first of equals


def _check_separators(lines, what):
  """Raises InputError if separators follow the names of images, but not the same in all lines."""
  for number, line in enumerate(lines, 1):
    match = _SEPARATED.search(line)
    if match:
      raise InputError(
        f"{what} has {match[0][-1]!r} after the name of an image in row {number}, but not the same "
        f"separator in all rows: {_READ}"
      )


def _check_classes(lines, what):
  """Raises InputError for lines that cannot be a class."""
  for number, line in enumerate(lines, 1):
    if line[0] in "{[<" or _NAME.search(line):
      raise InputError(
        f"{what} has no columns, and row {number} is not a class: {listing([line[:100]])}; {_READ}"
        ". JSON, JSON Lines and XML are not read"
      )


def _after_suffix(lines):
  """Rows split after the first suffix of images; [] if a line has none."""
  found = []
  for line in lines:
    ends = (match.end() for match in _NAME.finditer(line))
    end = next((e for e in ends if line[e : e + 2].lstrip("\"'")[:1].isspace()), None)
    if end is None:
      if found or len(lines) == 1:  # the first line may be a heading
        return []
      found.append(line.rsplit(maxsplit=1))
      continue
    end += line[end] in "\"'"
    found.append([line[:end], line[end:].strip()])
  return found


def _has_numbers(row):
  """Whether a cell contains several numbers: these are separate columns, not a class."""
  return any(map(_NUMBERS.fullmatch, row))


def _found(way, there):
  """The number of images that a reading of the lines finds."""
  columns = zip(*way, strict=True)
  return max(int(np.sum(matching.by_name(list(column), there).known)) for column in columns)
