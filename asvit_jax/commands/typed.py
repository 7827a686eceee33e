"""Config keys typed as flags, --config.KEY=VALUE, including None; and checks for contradictions."""

import itertools
import re
import sys

from absl import flags
from ml_collections import config_flags

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown


class _OrNone(flags.ArgumentParser):
  """Parses None, which unsets a key, and otherwise what absl's parser of a type parses."""

  def __init__(self, parser, kind):
    self._parser, self._kind = parser, kind
    self.syntactic_help = parser.syntactic_help

  def parse(self, argument):
    """The value of a text; other values are returned unchanged."""
    if argument == "None":
      return None
    if not isinstance(argument, (str, int, float)):  # keyword arguments, whose flag is text
      return argument
    try:
      return self._parser.parse(argument)
    except (TypeError, ValueError) as error:
      raise ValueError(f"expected {self._kind}, or None for a key that may be unset") from error

  def flag_type(self):
    """The type of the wrapped parser."""
    return self._parser.flag_type()


def allow_none():
  """Lets the keys of a config be set to None by flags, from now on."""
  for kind, parser, words in (
    (int, flags.IntegerParser(), "a whole number"),
    (float, flags.FloatParser(), "a number"),
    (bool, flags.BooleanParser(), "true or false"),
    (str, flags.ArgumentParser(), "text"),
  ):
    config_flags.register_flag_parser_for_type(kind, _OrNone(parser, words))


def check():
  """Checks the typed keys before any of them changes a config.

  Raises:
    InputError: both keys of the run's length; a key below one that holds a single value; or a value
      for a whole section.
  """
  typed = {}
  for argument, following in itertools.zip_longest(sys.argv[1:], sys.argv[2:]):
    match = re.fullmatch(r"--?config\.([^=]*)(?:=(.*))?", argument, re.DOTALL)
    if match is not None:
      typed[match[1]] = following if match[2] is None else match[2]
  if not typed:
    return
  epochs, steps = typed.get("epochs", "None"), typed.get("total_steps", "None")
  if "None" not in (epochs, steps):
    raise InputError(
      f"--config.epochs={epochs} and --config.total_steps={steps} both set the length of the run: "
      "give one of them"
    )
  for key, value in typed.items():
    _check_place(key, f"--config.{key}={value}")


def _check_place(key, said):
  """Raises InputError for a key that leads through a value, or ends at a section."""
  from asvit_jax.config.defaults import Arguments, Section, base

  *sections, last = key.split(".")
  at, path = base(), []
  for name in sections:
    path.append(name)
    at = at.get(name)
    if not isinstance(at, Section):
      if ".".join(path) in _keys():
        raise InputError(
          f"{shown(said)}: config.{'.'.join(path)} is one value, which has no keys: give "
          f"--config.{'.'.join(path)}=VALUE"
        )
      return  # an unknown section, or a section of the user's own
  if isinstance(at.get(last), Section) and not isinstance(at[last], Arguments):
    keys = list(at[last])
    raise InputError(
      f"{shown(said)}: config.{key} is a section: give its keys, such as "
      f"--config.{key}.{keys[0]}=VALUE"
    )
  if not last:
    raise InputError(f"{shown(said)}: the name of a key is missing after the last dot")


def _keys():
  from asvit_jax.config.defaults import base
  from asvit_jax.config.keys import flatten

  return flatten(base())


def config():
  """The value of --config with the typed keys; None if there is none."""
  given = flags.FLAGS["config"]
  if given.value is None:
    return None
  typed = getattr(given, "override_values", {})
  for key, value in typed.items():
    if value == (None,):  # absl's parser of tuples reads None as (None,)
      given.value.update_from_flattened_dict({key: None})
  return given.value
