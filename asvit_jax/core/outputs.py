"""Flags that name what is written: whether it can be is known before any work begins."""

import os

from absl import flags

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

flags.disclaim_key_flags()  # --help lists them as those of who asks for them


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
  flags.FLAGS[name].output = check, frozenset({f"--{other}" for other in over})


def define_directory(name, default, help_, check=storage.check_writable):
  """As `define`, of a directory that files are written in; others may be there, too."""
  define(name, default, help_, check)
  flags.FLAGS[name].output = check, None


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
    if other != name and other not in over:
      raise InputError(f"{name} {flag.value} would be written over {other}: give another name")


def _flags():
  found = (flags.FLAGS[name] for name in flags.FLAGS)
  return [flag for flag in found if hasattr(flag, "output")]


def _place(name):
  """The same for all names of a file."""
  path = storage.path(name)
  return str(path) if storage.in_bucket(path) else os.path.realpath(path)
