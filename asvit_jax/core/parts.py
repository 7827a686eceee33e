"""Tables of parts that a config chooses by name."""

import importlib
import sys

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint


def check_trusted(name, source):
  """Raises InputError for a part by `package.module:object` that nobody but a file asks for.

  Naming code in a config is asking for it to be run; opening a file that names some is not. What is
  imported already, by the config or by you, is.

  Args:
    name: of a part.
    source: the file that names it, for the error.
  """
  module, colon, _ = str(name).partition(":")
  if colon and module not in sys.modules:
    raise InputError(
      f"{source} names {name}, code from outside of this package, and opening a file runs none: "
      f"where you trust it, name it in the config, or import {module} first"
    )


class Table:
  """Parts of one kind by name, each imported when it is first asked for.

  So listing the names costs no import, and a part may need what others do without. A name with a
  colon, `package.module:object`, is imported as it is: your own part needs no entry here.

  Args:
    kind: what they are, for the error: "score".
    key: of the config that chooses one, or the flag: "model.score".
    places: {name: "package.module:object"}.
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
    place = self._places.get(name, name if ":" in str(name) else None)
    if place is None:
      raise InputError(
        f"{self.key} {name!r} is not known: choose from {', '.join(self.names)}, or give your own "
        f"{self.kind} as package.module:object{hint(name, self.names)}"
      )
    module, _, attribute = place.partition(":")
    try:
      return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # there is no saying what somebody's module raises
      if name in self._places:  # ours: what is missing is a library, and the error names it
        raise
      raise InputError(f"{self.key} {name!r} cannot be imported: {error}") from error

  def __setitem__(self, name, place):
    """Adds a part, for this process."""
    self._places[name] = place

  def __contains__(self, name):
    return name in self._places

  def __iter__(self):
    return iter(self._places)

  def __len__(self):
    return len(self._places)
