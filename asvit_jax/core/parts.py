"""Tables of parts that a config chooses by name, and who may name parts of one's own."""

import importlib
import re

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown

# What a part of somebody's own is called: a module, a colon, and what is in it.
_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def typed(names):
  """The names of parts that a user typed, as a frozenset.

  Args:
    names: of parts of one's own, `package.module:object`, in any collection; or one, as text.

  Raises:
    InputError: something else, such as the parts themselves.
  """
  names = (names,) if isinstance(names, str) else tuple(names)
  for name in names:
    if not isinstance(name, str) or not _OWN.fullmatch(name):
      raise InputError(f"part {shown(name, 100)} is not valid: expected package.module:object")
  return frozenset(names)


def check_from_file(name, key, source, parts=()):
  """Raises InputError for a part that is in no table and that nobody but a file asks for.

  Whoever types the name of a part, in a config or a flag, asks for its code to be run. Whoever
  opens a file that names one does not, whether or not its module happens to be imported already.

  Args:
    name: of a part, as the file has it.
    key: of the config that would choose it: "model.score".
    source: the file, for the error.
    parts: names that the user typed, see `typed`.
  """
  if isinstance(name, str) and ":" in name and name not in parts:
    refuse({key: name}, source)


def refuse(named, source):
  """Raises the InputError of `check_from_file`, for {key: name of a part}."""
  for key, name in named.items():
    if not _OWN.fullmatch(name):  # no advice to type that into a shell
      raise InputError(
        f"{source}: {key} {shown(name, 100)} is not known: it is not the name of a part"
      )
  names = list(dict.fromkeys(named.values()))
  flags = " ".join(f"--config.{key}={name}" for key, name in named.items())
  raise InputError(
    f"{source} names {', '.join(names)}, code from outside of this package, as its "
    f"{', '.join(named)}, and opening a file runs none: where you trust it, type the name: {flags}"
    f", or give the --config that has it; --parts={','.join(names)} where there is no config; in "
    f"Python parts={names}"
  )


class Table:
  """Parts of one kind by name, each imported when it is first asked for.

  So listing the names costs no import, and a part may need what others do without. A name with a
  colon, `package.module:object`, is imported as it is: your own part needs no entry here. Names
  that come from files have passed `check_from_file`, or a config's `config.parts.check`, before.

  Args:
    kind: what they are, for the error: "score".
    key: of the config that chooses one, or the flag: "model.score".
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
    """Raises InputError unless `name` leads to a part, naming those there are."""
    self[name]

  def __getitem__(self, name):
    """The part of that name; raises InputError where there is none."""
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
    except Exception as error:  # there is no saying what somebody's module raises
      if name in self._places:  # ours: what is missing is a library, and the error names it
        raise
      raise InputError(f"{self.key} {shown(name)} cannot be imported: {error}") from error

  def __setitem__(self, name, place):
    """Adds a part, for this process."""
    self._places[name] = place

  def __contains__(self, name):
    return isinstance(name, str) and name in self._places

  def __iter__(self):
    return iter(self._places)

  def __len__(self):
    return len(self._places)
