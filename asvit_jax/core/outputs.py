"""Flags that name outputs; all are checked before any work starts."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

from absl import flags

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

flags.disclaim_key_flags()  # --help lists these flags under the module that calls `define`


@dataclasses.dataclass(frozen=True)
class Kept:
  """A file or directory that no flag may overwrite.

  Attributes:
    path: path of the file or directory.
    what: its description, for the error.
    holds: function that says whether a path (of `storage.path`, the directory or one below it) is
      protected; None if only `path` itself is.
  """

  path: str | pathlib.Path
  what: str
  holds: Callable | None = None


def define(name, default, help_, check=storage.check_file, over=()):
  """Defines a flag that names a file to write.

  Args:
    name: name of the flag.
    default: value if the flag is not given.
    help_: help text of the flag.
    check: function of the value and of a name for the error; raises InputError if the file cannot
      be written.
    over: flags whose file this flag may overwrite.
  """
  flags.DEFINE_string(name, default, help_)
  flags.FLAGS[name].output = check, frozenset(over)


def define_directory(name, default, help_, check=storage.check_writable):
  """Defines a flag that names a directory to write files to, which may contain others."""
  define(name, default, help_, check)
  flags.FLAGS[name].output = check, None


def keep(name, kept):
  """Declares which files no output may overwrite if another flag is given.

  Args:
    name: name of that flag.
    kept: function of the flag's value that returns a list of `Kept`.
  """
  flags.FLAGS[name].kept = kept


def named():
  """{name: value} of the flags defined here that are given."""
  return {f.name: f.value for f in _flags() if f.value is not None}


def check(inputs, arguments=()):
  """Raises InputError if an output cannot be written, or is also an input.

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
      raise InputError(f"{name} {flag.value} would overwrite {other}: give another name")
  for name in flags.FLAGS:
    flag = flags.FLAGS[name]
    if hasattr(flag, "kept") and flag.value is not None:
      check_kept(flag.kept(flag.value))


def check_kept(kept):
  """Raises InputError if a flag names a protected path; `kept` is a list of `Kept`."""
  for flag in _flags() if kept else ():
    if flag.value is None:
      continue
    place, (_, over) = _place(flag.value), flag.output
    # Writing into a directory overwrites nothing, nor does replacing a file that `over` allows.
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
          f"--{flag.name} {flag.value} would overwrite {one.what}: give another name"
        )


def _flags():
  found = (flags.FLAGS[name] for name in flags.FLAGS)
  return [flag for flag in found if hasattr(flag, "output")]


def _place(name):
  """A canonical name of a file, equal for all its spellings."""
  path = storage.path(name)
  return str(path) if storage.in_bucket(path) else os.path.realpath(path)
