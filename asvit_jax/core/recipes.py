"""The recipes of `configs/` by name, from a checkout or from the installed package."""

import functools
import importlib.util
import pathlib

from asvit_jax.core.errors import InputError

_PACKAGE = pathlib.Path(__file__).parents[1]


def directory():
  """Where they are: `recipes/` in an installed package, `configs/` beside it in a checkout."""
  installed = _PACKAGE / "recipes"
  return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names():
  """The names of all recipes, sorted."""
  return sorted(path.stem for path in directory().glob("[!_]*.py"))


def find(config):
  """The file that a `--config` means.

  Args:
    config: path or name of a recipe, with or without an argument after a colon: `as_deit_s:0.65`,
      `configs/as_deit_s.py:0.65`, `/home/me/mine.py`. A file that is there comes first.

  Returns:
    The same with the path of a recipe where it is the name of one, else `config` itself.
  """
  path, colon, argument = config.partition(":")
  named = path.removeprefix("configs/").removesuffix(".py")
  if pathlib.Path(path).is_file() or named not in names():
    return config
  return f"{directory() / named}.py{colon}{argument}"


def in_place_of_names(arguments):
  """Arguments with the file in place of a recipe's name after --config."""
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
  """The config of a recipe; raises InputError for a name that is none."""
  if name not in names():
    raise InputError(f"recipe {name!r} is not known: choose from {', '.join(names())}")
  return _module(directory() / f"{name}.py").get_config(*arguments)


@functools.cache
def _module(path):
  spec = importlib.util.spec_from_file_location(f"asvit_jax_recipe_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
