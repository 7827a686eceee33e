"""Keys of a config as somebody types them: --config.KEY=VALUE, also None, and what contradicts."""

from absl import flags
from ml_collections import config_flags

from asvit_jax.core.errors import InputError


class _OrNone(flags.ArgumentParser):
  """Reads None, which leaves a key open, and else what absl's parser of a type reads."""

  def __init__(self, parser, kind):
    self._parser, self._kind = parser, kind
    self.syntactic_help = parser.syntactic_help

  def parse(self, argument):
    """The value of a text; a value stays as it is."""
    if argument == "None":
      return None
    if not isinstance(argument, (str, int, float)):  # keyword arguments, whose flag is text
      return argument
    try:
      return self._parser.parse(argument)
    except (TypeError, ValueError) as error:
      raise ValueError(f"expected {self._kind}, or None where a key may be left open") from error

  def flag_type(self):
    """As the parser's."""
    return self._parser.flag_type()


def allow_none():
  """From now on the keys of a config can be typed as None."""
  for kind, parser, words in (
    (int, flags.IntegerParser(), "a whole number"),
    (float, flags.FloatParser(), "a number"),
    (bool, flags.BooleanParser(), "true or false"),
    (str, flags.ArgumentParser(), "text"),
  ):
    config_flags.register_flag_parser_for_type(kind, _OrNone(parser, words))


def config():
  """The value of --config, with the keys that were typed; None where there is none.

  Raises:
    InputError: keys that were typed and contradict each other.
  """
  given = flags.FLAGS["config"]
  if given.value is None:
    return None
  typed = getattr(given, "override_values", {})
  for key, value in typed.items():
    if value == (None,):  # as the parser of tuples, which allows for one, reads None
      given.value.update_from_flattened_dict({key: None})
  if typed.get("epochs") is not None and typed.get("total_steps") is not None:
    raise InputError(
      f"--config.epochs={typed['epochs']:g} and --config.total_steps={typed['total_steps']} both "
      "say how long the run is: give one of them"
    )
  return given.value
