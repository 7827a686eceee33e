"""Tables of parts that a config chooses by name, and the rule for naming parts of one's own."""

import importlib
import re

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown

# The name of a user's own part: module, colon, attribute.
_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def typed(names):
  """The names of parts that the user typed, as a frozenset.

  Args:
    names: collection of names `package.module:object`, or a single name.

  Raises:
    InputError: anything else, such as the parts themselves.
  """
  names = (names,) if isinstance(names, str) else tuple(names)
  for name in names:
    if not isinstance(name, str) or not _OWN.fullmatch(name):
      raise InputError(f"part {shown(name, 100)} is not valid: expected package.module:object")
  return frozenset(names)


def check_from_file(name, key, source, parts=()):
  """Raises InputError for a part outside the tables that is named only by a file.

  Typing the name of a part, in a config or a flag, is permission to run its code. Opening a file
  that names one is not, even if its module happens to be imported already.

  Args:
    name: the part's name, as it stands in the file.
    key: the config's key that would choose it: "model.score".
    source: the file, for the error.
    parts: names that the user typed, see `typed`.
  """
  if isinstance(name, str) and ":" in name and name not in parts:
    refuse({key: name}, source)


def refuse(named, source):
  """Raises the InputError of `check_from_file` for {key: name of a part}."""
  for key, name in named.items():
    if not _OWN.fullmatch(name):  # never advise typing an arbitrary text into a shell
      raise InputError(
        f"{source}: {key} {shown(name, 100)} is not known: it is not the name of a part"
      )
  names = list(dict.fromkeys(named.values()))
  flags = " ".join(f"--config.{key}={name}" for key, name in named.items())
  raise InputError(
    f"{source} names {', '.join(names)}, code outside this package, as its {', '.join(named)}; "
    "opening a file never runs such code: if you trust it, type the name yourself, as "
    f"{flags}, or give the --config that contains it, or --parts={','.join(names)}; in Python "
    f"parts={names}"
  )


class Table:
  """Parts of one kind by name.

  A built-in part is the object itself. It is a text, "package.module:object", which is imported
  when it is first looked up, only where importing it with the table would be slow, would need a
  library that others do without, or would be circular.

  A name with a colon, `package.module:object`, is imported directly: your own part needs no entry
  here. Names from files must first pass `check_from_file`, or, as part of a config,
  `config.parts.check`.

  Args:
    kind: the kind of part, for the error: "score".
    key: the config's key, or the flag, that chooses one: "model.score".
    places: {name: the part, or "package.module:object"}.
  """

  def __init__(self, kind, key, places):
    self.kind, self.key = kind, key
    self._places = dict(places)

  @property
  def names(self):
    """The names, in the order of the table."""
    return tuple(self._places)

  def check(self, name):
    """Raises InputError, listing the known names, unless `name` leads to a part."""
    self[name]

  def __getitem__(self, name):
    """The part of that name; raises InputError if there is none."""
    place = None
    if isinstance(name, str):
      place = self._places.get(name, name if _OWN.fullmatch(name) else None)
    if place is None:
      raise InputError(
        f"{self.key} {shown(name, 100)} is not known: choose from {', '.join(self.names)}, or give "
        f"your own {self.kind} as package.module:object{hint(name, self.names)}"
      )
    if not isinstance(place, str):
      return place
    module, _, attribute = place.partition(":")
    try:
      return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
      if name in self._places:  # a built-in part: the error names the missing library
        raise
      raise InputError(f"{self.key} {shown(name)} cannot be imported: {error}") from error

  def __setitem__(self, name, place):
    """Adds a part, or its "package.module:object", for the life of this process."""
    self._places[name] = place

  def __contains__(self, name):
    return isinstance(name, str) and name in self._places

  def __iter__(self):
    return iter(self._places)

  def __len__(self):
    return len(self._places)
