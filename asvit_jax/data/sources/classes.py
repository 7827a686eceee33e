"""The classes of a data set: which there are, in which order, and what they are called.

A class has a key, which is its directory or its label in a file of labels, and a name, which people
read. The keys of a directory are in the order of their names, as numbers where all are numbers.
"""

import ast
import dataclasses
import json
import re
import unicodedata

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

_WORDNET = re.compile(r"n\d{8}")
_NUMBERED = (
  re.compile(r"(?P<name>.*\S)\s*[\s,;:=]\s*(?P<label>\d+)"),
  re.compile(r"(?P<label>\d+)\s*[\s,;:=]\s*(?P<name>\S.*)"),
)


@dataclasses.dataclass(frozen=True)
class Classes:
  """Classes in label order.

  Attributes:
    keys: of the classes, in the normal form of Unicode (NFC): macOS writes names in another.
    names: of the classes.
    notes: what is worth saying of them.
  """

  keys: tuple[str, ...]
  names: tuple[str, ...]
  notes: tuple[str, ...] = ()

  def labels(self):
    """{key: label}.

    Raises:
      InputError: a key is there twice, as names alone may be.
    """
    label_of = {key: label for label, key in enumerate(self.keys)}
    if len(label_of) < len(self.keys):
      twice = [key for label, key in enumerate(self.keys) if label_of[key] != label]
      raise InputError(
        f"data.classes names a class more than once: {listing(twice)}; name each once, by its "
        "directory"
      )
    return label_of


def of_directories(names, where):
  """The `Classes` of these directories of `where`."""
  keys = ordered(set(map(normal, names)))
  notes = ()
  if keys != sorted(keys):
    notes = (
      f"the classes of {where} are numbers, and in their order: {listing(keys)} (data.classes "
      "gives another)",
    )
  return Classes(tuple(keys), tuple(keys), notes)


def ordered(names):
  """Sorted: as numbers where all are, else as text."""
  names = list(names)
  if all(re.fullmatch("-?[0-9]+", name) for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)


def normal(name):
  """A name in the normal form that keys have."""
  return unicodedata.normalize("NFC", name)


def listing(names):
  """The first five, and how many more."""
  names = list(names)
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_number(names, count, what, where="give"):
  """Raises InputError where there are names, and not as many as what they name has classes."""
  if names is not None and len(names) != count:
    raise InputError(
      f"{len(names)} names of classes ({listing(names)}) for {what}, which has {count} classes: "
      f"{where} data.classes, a file with all of them in label order"
    )


def read_text(file, key, expected):
  """The text of a file of UTF-8, or of UTF-16 with a mark of it, without the mark.

  Args:
    file: path.
    key: of the config that names it, for the error.
    expected: what the file should be.

  Raises:
    InputError: it cannot be read.
  """
  try:
    content = storage.read(file)
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    return content.decode("utf-16" if wide else "utf-8-sig")
  except (OSError, UnicodeError) as error:
    raise InputError(f"{key} {str(file)!r} cannot be read ({error}): give {expected}") from error


def read_classes(file, directories=()):
  """The `Classes` of a file.

  It is a text with a class a line, the number of the line being the label: the directory; or the
  directory, a tab or a space, and a name; or the directory and its label, in either order. Or it is
  JSON, or a Python dictionary: {directory: label}, {label: name}, {label: [directory, name]}, a
  list, or an object with one of them as `classes`, `class_to_idx` or `id2label`.

  Args:
    file: path.
    directories: those that are there. Where the lines can be read in several ways, that way is
      taken which finds most of them.

  Raises:
    InputError: no such file, an empty line, or labels with gaps.
  """
  text = read_text(file, "data.classes", "a text file with a class a line")
  what = f"data.classes {str(file)!r}"
  pairs = (
    _of_object(text, what)
    if text.lstrip()[:1] in ("{", "[")
    else _of_lines(text, what, directories)
  )
  return Classes(tuple(normal(key) for key, _ in pairs), tuple(name for _, name in pairs))


def _of_lines(text, what, directories):
  """[(key, name)] of the reading that finds most of the directories; of equal ones the first."""
  lines = re.split(r"\r\n|\r|\n", text.rstrip())
  empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
  if empty:
    raise InputError(
      f"{what} has no class on line {empty[0]}: the line number is the label, so no line may be "
      "empty"
    )
  there = {normal(name) for name in directories}
  readings = _readings([line.strip() for line in lines])
  return max(readings, key=lambda pairs: len(there & {normal(key) for key, _ in pairs}))


def _readings(lines):
  """Ways to read lines as [(key, name)], the likeliest first; none has a key twice, if one can."""
  numbered = [_numbered(lines, pattern) for pattern in _NUMBERED]
  readings = [pairs for found in (*numbered, lines) if found for pairs in _split(found)]
  return [pairs for pairs in readings if _all_differ(key for key, _ in pairs)] or readings


def _numbered(lines, pattern):
  """What stands beside the labels, in their order; None of lines that do not give each its own."""
  found = [pattern.fullmatch(line) for line in lines]
  if found[0] is None:
    found = found[1:]  # a heading
  if not all(found) or len(found) < 2:
    return None
  by_label = {int(match["label"]): match["name"].strip("\"' ") for match in found}
  in_order = sorted(by_label) == list(range(len(found)))
  return [by_label[label] for label in range(len(found))] if in_order else None


def _split(lines):
  """Ways to take lines apart into [(key, name)], the likeliest first."""
  words = [(line.split()[0], line.split(maxsplit=1)[-1]) for line in lines]
  if any("\t" in line for line in lines):
    cells = [[cell.strip() for cell in line.split("\t", 1)] for line in lines]
    return [[(cell[0], cell[-1]) for cell in cells]]
  if all(_WORDNET.fullmatch(key) for key, _ in words):
    return [words]
  return [[(line, line) for line in lines], words]


def _of_object(text, what):
  """[(key, name)] of JSON or of a Python literal."""
  try:
    found = json.loads(text)
  except ValueError:
    try:
      found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
      raise InputError(
        f"{what} is neither JSON nor a Python dictionary ({error}): give that, or a class a line"
      ) from error
  for key in ("classes", "class_to_idx", "id2label"):
    if isinstance(found, dict) and isinstance(found.get(key), (dict, list)):
      found = found[key]
  if isinstance(found, list):
    found = dict(enumerate(found))
  if not isinstance(found, dict) or not found:
    raise InputError(f"{what} has no classes: expected {{directory: label}}, or a list of them")
  if all(isinstance(label, int) for label in found.values()):  # class_to_idx
    found = {label: key for key, label in found.items()} if _all_differ(found.values()) else {}
  try:
    by_label = {int(label): value for label, value in found.items()}
  except (TypeError, ValueError):
    by_label = {}
  if sorted(by_label) != list(range(len(by_label))) or not by_label:
    raise InputError(
      f"{what}: expected {{directory: label}} or {{label: name}} with each label from 0 once"
    )
  return [_pair(by_label[label], what) for label in range(len(by_label))]


def _all_differ(values):
  values = list(values)
  return len(set(values)) == len(values)


def _pair(value, what):
  """(key, name) of a class: its directory, or [directory, name]."""
  if isinstance(value, str):
    return value, value
  if (
    isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, str) for v in value)
  ):
    return tuple(value)
  raise InputError(f"{what}: {value!r} is no class: expected its name, or [directory, name]")
