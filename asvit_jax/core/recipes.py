"""Finds the recipes of `configs/` by name, in a checkout or in the installed package."""

import functools
import importlib.util
import inspect
import os
import pathlib
import tempfile

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint

_PACKAGE = pathlib.Path(__file__).parents[1]


def directory():
  """The recipes' directory: `recipes/` in an installed package, `configs/` in a checkout."""
  installed = _PACKAGE / "recipes"
  return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names():
  """The names of all recipes, sorted."""
  return sorted(path.stem for path in directory().glob("[!_]*.py"))


def find(config):
  """Resolves the value of `--config` to a file.

  Args:
    config: path or name of a recipe, optionally with an argument after a colon: `as_deit_s:0.65`,
      `configs/as_deit_s.py:0.65`, `~/mine.py`, `gs://bucket/mine.py`. Existing files take
      precedence.

  Returns:
    The value with the name replaced by the recipe's path, or a URL by the path of a local copy;
    otherwise `config` unchanged.

  Raises:
    InputError: the path is a device, or the file in a bucket cannot be read.
  """
  scheme, separator, rest = config.partition("://")
  if separator:
    path, colon, argument = rest.partition(":")
    return f"{_fetched(f'{scheme}://{path}')}{colon}{argument}"
  path, colon, argument = config.partition(":")
  if storage.path(path).is_char_device() and path != os.devnull:
    raise InputError(f"--config {path} is a device, which may be endless: give a file")
  named = path.removeprefix("configs/").removesuffix(".py")
  if storage.path(path).is_file():
    return f"{storage.path(path)}{colon}{argument}" if path.startswith("~") else config
  if named not in names():
    return config
  return f"{directory() / named}.py{colon}{argument}"


def _fetched(url):
  """A local copy of a config in a bucket, kept as long as this process runs."""
  copy = pathlib.Path(_temporary().name) / url.rpartition("/")[2]
  try:
    copy.write_bytes(storage.read(url))
  except OSError as error:
    raise InputError(f"--config {url} cannot be read ({error}): check the path") from error
  return copy


@functools.cache
def _temporary():
  return tempfile.TemporaryDirectory()


def in_place_of_names(arguments):
  """Replaces the value of --config among the arguments by the file that it means, see `find`.

  Raises:
    InputError: --config is given twice, or `find` raised it.
  """
  given = [a for a in arguments if a.partition("=")[0] in ("--config", "-config")]
  if len(given) > 1:
    raise InputError(f"--config is given {len(given)} times ({', '.join(given)}): give it once")
  found = []
  for i, argument in enumerate(arguments):
    name, equals, value = argument.partition("=")
    if name in ("--config", "-config") and equals:
      argument = f"{name}={find(value)}"
    elif i and arguments[i - 1] in ("--config", "-config"):
      argument = find(argument)
    found.append(argument)
  return found


def load(name, *arguments):
  """The config of a recipe; raises InputError for an unknown name."""
  if name not in names():
    known = names()
    raise InputError(
      f"recipe {name!r} is not known: choose from {', '.join(known)}{hint(name, known)}"
    )
  get_config = _module(directory() / f"{name}.py").get_config
  if arguments and not inspect.signature(get_config).parameters:
    raise InputError(f"recipe {name} takes no argument, but {':'.join(arguments)!r} was given")
  return get_config(*arguments)


@functools.cache
def _module(path):
  spec = importlib.util.spec_from_file_location(f"asvit_jax_recipe_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
