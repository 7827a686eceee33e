"""The classes of a data set: their order and their names.

A class has a key, its directory or its label in a file of labels, and a name for people to read.
Directories are sorted by name, or by number if all are numbers.
"""

import ast
import dataclasses
import json
import re

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.data.sources import lines
from asvit_jax.data.sources.lines import LONGEST, MOST, normal

_MOST_BYTES = 64 << 20  # size of a file of classes
_MOST_LITERAL = 4 << 20  # characters
_DEEPEST = 32  # levels of nested brackets
# A quotation without its closing quote ends with the line: else every quote would scan to the end.
_QUOTED = re.compile(r"""'(?:[^'\\\n]|\\.)*'?|"(?:[^"\\\n]|\\.)*"?""")
# All that Python dictionaries and lists of names and numbers consist of.
_LITERAL = re.compile(rf"{_QUOTED.pattern}|\b[0-9]{{1,9}}\b(?:\.0*)?|[\s\[\](){{}},:]+")


@dataclasses.dataclass(frozen=True)
class Classes:
  """Classes in label order.

  Attributes:
    keys: keys of the classes, in Unicode's normal form NFC (macOS writes names in another form).
    names: names of the classes.
    notes: sentences that the user should read.
  """

  keys: tuple[str, ...]
  names: tuple[str, ...]
  notes: tuple[str, ...] = ()

  def labels(self):
    """{key: label}.

    Raises:
      InputError: a key appears twice; only names may.
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
  """The `Classes` of the given directory names of `where`."""
  keys = ordered(set(map(normal, names)))
  notes = ()
  if keys != sorted(keys):
    notes = (
      f"the classes of {where} are numbers, and sorted as numbers: {listing(keys)} (data.classes "
      "sets another order)",
    )
  return Classes(tuple(keys), tuple(keys), notes)


def ordered(names):
  """Sorted names: as numbers if all are numbers, else as text."""
  names = list(names)
  if all(re.fullmatch("-?[0-9]+", name) for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)


def listing(names):
  """The first five names, and the number of the others."""
  names = list(names)
  return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_number(names, count, what, where="give"):
  """Raises InputError if names are given and their number differs from the number of classes."""
  if names is not None and len(names) != count:
    raise InputError(
      f"{len(names)} names of classes ({listing(names)}) for {what}, which has {count} classes: "
      f"{where} data.classes, a file with all of them in label order"
    )


def read_text(file, key, expected, most=_MOST_BYTES):
  """Reads a file in UTF-8, or in UTF-16 with a byte order mark; the mark is dropped.

  Args:
    file: path.
    key: the config's key that names it, for the error.
    expected: a description of a valid file, for the error.
    most: largest number of bytes.

  Raises:
    InputError: the file cannot be read.
  """
  try:
    content = storage.read(file, most)
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    return content.decode("utf-16" if wide else "utf-8-sig")
  except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a zero byte in the name
    raise InputError(f"{key} {str(file)!r} cannot be read ({error}): give {expected}") from error


def read_classes(file, directories=()):
  """Reads the `Classes` of a file.

  A text file has a class per line, in label order: the directory; or the directory, a tab or space,
  and a name; or the directory and its label, in either order. A JSON file or a Python dictionary
  has the form {directory: label}, {label: name} or {label: [directory, name]}, or is a list, or an
  object with one of these as `classes`, `class_to_idx` or `id2label`.

  Args:
    file: path.
    directories: the existing directories. If lines can be read in several ways, the reading that
      matches most of them is chosen.

  Raises:
    InputError: the file is missing or has an empty line, labels with gaps or invalid names.
  """
  text = read_text(file, "data.classes", "a text file with a class per line")
  what = f"data.classes {str(file)!r}"
  pairs = (
    _of_object(text, what)
    if text.lstrip()[:1] in ("{", "[")
    else lines.pairs(text, what, directories)
  )
  _check_names(pairs, what)
  return Classes(tuple(normal(key) for key, _ in pairs), tuple(name for _, name in pairs))


def _check_names(pairs, what):
  """Raises InputError for empty or overlong keys and names, and for too many classes."""
  if len(pairs) > MOST:
    raise InputError(f"{what} has {len(pairs):,} classes, expected at most {MOST:,}")
  for label, pair in enumerate(pairs):
    if not all(text.strip() for text in pair) or any("\0" in text for text in pair):
      raise InputError(
        f"{what}: class {label} has no name, or one with zero bytes: expected UTF-8 text with a "
        "name for each"
      )
    longest = max(map(len, pair))
    if longest > LONGEST:
      raise InputError(
        f"{what}: class {label} has a name of {longest:,} characters, expected at most {LONGEST:,}"
      )


def _of_object(text, what):
  """[(key, name)] of a JSON text or a Python literal."""
  found = _value(text, what)
  for key in ("classes", "class_to_idx", "id2label"):
    if isinstance(found, dict) and isinstance(found.get(key), (dict, list)):
      found = found[key]
  if isinstance(found, list):
    found = {str(label): value for label, value in enumerate(found)}
  if not isinstance(found, dict) or not found:
    raise InputError(f"{what} has no classes: expected {{directory: label}}, or a list of them")
  numbers = {key: _label(value) for key, value in found.items()}
  if None not in numbers.values():  # class_to_idx
    by_label = {number: key for key, number in numbers.items()}
  else:
    by_label = {_label(key): value for key, value in found.items()}
  if len(by_label) != len(found) or not by_label.keys() == set(range(len(found))):
    raise InputError(
      f"{what}: expected {{directory: label}} or {{label: name}} with each label from 0 once"
    )
  return [_pair(by_label[label], what) for label in range(len(by_label))]


def _value(text, what):
  """Parses JSON, or a Python dictionary or list as `print` writes it.

  Deeply nested text is refused before parsing, which would exhaust the stack. Python's parser,
  which takes a hundred times the memory of its text, only gets short texts of words, numbers and
  brackets.
  """
  if _depth(text) > _DEEPEST:
    raise InputError(f"{what} is nested too deeply: expected {{directory: label}}, or a list")
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    reason = error
  try:
    if len(text) <= _MOST_LITERAL and not _LITERAL.sub("", text):
      return json.loads(json.dumps(ast.literal_eval(text.strip())))  # tuples become lists
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
    reason = error
  raise InputError(
    f"{what} is neither JSON nor a Python dictionary ({str(reason)[:200]}): give that, or a class "
    "per line"
  ) from reason


def _depth(text):
  """The depth of nested brackets, ignoring those in quotes."""
  deepest = depth = 0
  for match in re.finditer(r"[\[{(]|[\]})]", _QUOTED.sub("", text)):
    depth += -1 if match[0] in "]})" else 1
    deepest = max(deepest, depth)
  return deepest


def _label(value):
  """The value of a label, given as a number or as text; None for anything else."""
  if isinstance(value, float) and value.is_integer():
    return int(value)
  if isinstance(value, int) and not isinstance(value, bool):
    return value
  return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else None


def _pair(value, what):
  """(key, name) of a class, given by its directory or by [directory, name]."""
  if isinstance(value, str):
    return value, value
  if (
    isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, str) for v in value)
  ):
    return tuple(value)
  raise InputError(f"{what}: {value!r} is not a class: expected its name, or [directory, name]")
