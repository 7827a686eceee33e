"""Flags that name what is written: whether it can be is known before any work begins."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

from absl import flags

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

flags.disclaim_key_flags()  # --help lists them as those of who asks for them


@dataclasses.dataclass(frozen=True)
class Kept:
  """What no flag may write over.

  Attributes:
    path: of a file or a directory.
    what: it is, for the error.
    holds: function of a path of `storage.path`, of the directory or below it, that returns whether
      it is meant; None where `path` is a file, or only what is itself there is meant.
  """

  path: str | pathlib.Path
  what: str
  holds: Callable | None = None


def define(name, default, help_, check=storage.check_file, over=()):
  """A flag that names a file to write.

  Args:
    name: of the flag.
    default: its value where it is not given.
    help_: of the flag.
    check: function of its value, and of what the error shall call it, that raises InputError where
      it cannot be written.
    over: flags whose file may be written over by it.
  """
  flags.DEFINE_string(name, default, help_)
  flags.FLAGS[name].output = check, frozenset(over)


def define_directory(name, default, help_, check=storage.check_writable):
  """As `define`, of a directory that files are written in; others may be there, too."""
  define(name, default, help_, check)
  flags.FLAGS[name].output = check, None


def keep(name, kept):
  """Says what no flag may write over because of another flag.

  Args:
    name: of that flag.
    kept: function of its value that returns a list of `Kept`.
  """
  flags.FLAGS[name].kept = kept


def named():
  """{name of a flag: its value}, of those that are defined here and given."""
  return {f.name: f.value for f in _flags() if f.value is not None}


def check(inputs, arguments=()):
  """Raises InputError where a flag names something that cannot be written, or that is read.

  Args:
    inputs: names of flags that may name files to read.
    arguments: names of files to read.
  """
  taken = {_place(argument): argument for argument in arguments}
  for name in set(inputs) - set(named()):
    if name in flags.FLAGS and flags.FLAGS[name].value:
      taken[_place(flags.FLAGS[name].value)] = f"--{name}"
  for flag in _flags():
    if flag.value is None:
      continue
    name, (check_one, over) = f"--{flag.name}", flag.output
    check_one(flag.value, name)
    if over is None:
      continue
    other = taken.setdefault(_place(flag.value), name)
    if other not in {name, *(f"--{may}" for may in over)}:
      raise InputError(f"{name} {flag.value} would be written over {other}: give another name")
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    if hasattr(flag, "kept") and flag.value is not None:
      check_kept(flag.kept(flag.value))


def check_kept(kept):
  """Raises InputError where a flag names what is to be kept, a list of `Kept`."""
  for flag in _flags() if kept else ():
    if flag.value is None:
      continue
    place, (_, over) = _place(flag.value), flag.output
    # A directory is written in; and a file that the flag may replace may be named twice.
    free = over is None or place in {_place(v) for name in over if (v := flags.FLAGS[name].value)}
    for one in kept:
      root = _place(one.path)
      if one.holds is None:
        found = place == root and not free
      else:
        inside = place == root or place.startswith(root.rstrip("/") + "/")
        found = inside and one.holds(storage.path(place))
      if found:
        raise InputError(
          f"--{flag.name} {flag.value} would be written over {one.what}: give another name"
        )


def _flags():
  found = (flags.FLAGS[name] for name in flags.FLAGS)
  return [flag for flag in found if hasattr(flag, "output")]


def _place(name):
  """The same for all names of a file."""
  path = storage.path(name)
  return str(path) if storage.in_bucket(path) else os.path.realpath(path)
