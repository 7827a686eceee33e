"""Config keys typed as flags, --config.KEY=VALUE, including None; and checks for contradictions."""

from absl import flags
from ml_collections import config_flags

from asvit_jax.core.errors import InputError


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


def config():
  """The value of --config with the typed keys; None if there is none.

  Raises:
    InputError: typed keys contradict each other.
  """
  given = flags.FLAGS["config"]
  if given.value is None:
    return None
  typed = getattr(given, "override_values", {})
  for key, value in typed.items():
    if value == (None,):  # absl's parser of tuples reads None as (None,)
      given.value.update_from_flattened_dict({key: None})
  if typed.get("epochs") is not None and typed.get("total_steps") is not None:
    raise InputError(
      f"--config.epochs={typed['epochs']:g} and --config.total_steps={typed['total_steps']} both "
      "set the length of the run: give one of them"
    )
  return given.value
