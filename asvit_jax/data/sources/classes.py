"""The classes of a data set: which there are, in which order, and what they are called.

A class has a key, which is its directory or its label in a file of labels, and a name, which people
read. The keys of a directory are in the order of their names, as numbers where all are numbers.
"""

import ast
import dataclasses
import json
import re

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.data.sources import lines
from asvit_jax.data.sources.lines import LONGEST, MOST, normal

_MOST_BYTES = 64 << 20  # of a file of classes
_MOST_LITERAL = 4 << 20  # characters
_DEEPEST = 32  # brackets in each other
# Where the closing quote is missing, they end with the line: what fails late is tried again.
_QUOTED = re.compile(r"""'(?:[^'\\\n]|\\.)*'?|"(?:[^"\\\n]|\\.)*"?""")
# What Python dictionaries and lists of names and numbers are written with.
_LITERAL = re.compile(rf"{_QUOTED.pattern}|\b[0-9]{{1,9}}\b(?:\.0*)?|[\s\[\](){{}},:]+")


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


def read_text(file, key, expected, most=_MOST_BYTES):
  """The text of a file of UTF-8, or of UTF-16 with a mark of it, without the mark.

  Args:
    file: path.
    key: of the config that names it, for the error.
    expected: what the file should be.
    most: bytes that it may have.

  Raises:
    InputError: it cannot be read.
  """
  try:
    content = storage.read(file, most)
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    return content.decode("utf-16" if wide else "utf-8-sig")
  except (OSError, ValueError) as error:  # the latter of no UTF-8, and of names with a zero byte
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
    InputError: no such file, an empty line, labels with gaps, or names that cannot be ones.
  """
  text = read_text(file, "data.classes", "a text file with a class a line")
  what = f"data.classes {str(file)!r}"
  pairs = (
    _of_object(text, what)
    if text.lstrip()[:1] in ("{", "[")
    else lines.pairs(text, what, directories)
  )
  _check_names(pairs, what)
  return Classes(tuple(normal(key) for key, _ in pairs), tuple(name for _, name in pairs))


def _check_names(pairs, what):
  """Raises InputError for keys or names that nobody can have meant, and for too many."""
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
  """[(key, name)] of JSON or of a Python literal."""
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
  """The value of a text that is JSON, or a Python dictionary or list as `print` writes it.

  Parsers get nothing that is deep: they would take the stack. That of Python gets nothing else than
  words, numbers and brackets, and not much: it takes a hundred times the memory of its text.
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
    "a line"
  ) from reason


def _depth(text):
  """How deep brackets are in each other, those in quotes apart."""
  deepest = depth = 0
  for match in re.finditer(r"[\[{(]|[\]})]", _QUOTED.sub("", text)):
    depth += -1 if match[0] in "]})" else 1
    deepest = max(deepest, depth)
  return deepest


def _label(value):
  """A label as a number or as text, or None of what is none."""
  if isinstance(value, float) and value.is_integer():
    return int(value)
  if isinstance(value, int) and not isinstance(value, bool):
    return value
  return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else None


def _pair(value, what):
  """(key, name) of a class: its directory, or [directory, name]."""
  if isinstance(value, str):
    return value, value
  if (
    isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, str) for v in value)
  ):
    return tuple(value)
  raise InputError(f"{what}: {value!r} is no class: expected its name, or [directory, name]")
