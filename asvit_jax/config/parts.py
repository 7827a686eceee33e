"""The keys of a config that name parts, and the users' own parts that they name."""

from asvit_jax.core.parts import refuse
from asvit_jax.data.sources import SOURCES

# Keys whose parts run in a network, in an evaluation, and in training.
NETWORK = ("model.stem", "model.attention", "model.score", "model.reduction")
EVALUATION = (*NETWORK, "data.name")
TRAINING = (*EVALUATION, "criterion.name", "optimizer.name")


def own(config):
  """The users' own parts that a config names, a frozenset of `package.module:object`.

  Args:
    config: see `config.base`, or `Plan.given`.
  """
  return frozenset(filter(None, (_own(config, key) for key in TRAINING)))


def check(config, source, typed, needed, instead):
  """Raises InputError if a config read from a file names foreign code that the user did not type.

  Args:
    config: see `config.base`. Foreign names of parts that are not needed are replaced in it, so
      that no later code can import them.
    source: the file, for the error.
    typed: names of users' own parts that the user typed, see `core.parts.typed`.
    needed: the keys whose parts will run.
    instead: a config with the replacements.
  """
  own = {key: _own(config, key) for key in TRAINING}
  own = {key: name for key, name in own.items() if name is not None and name not in typed}
  missing = {key: name for key, name in own.items() if key in needed}
  if missing:
    refuse(missing, source)
  for key in own:
    section, _, field = key.partition(".")
    config[section][field] = instead[section][field]


def _own(config, key):
  section, _, field = key.partition(".")
  name = config[section].get(field)
  before, colon, _ = str(name).partition(":")
  of_table = key == "data.name" and before in SOURCES  # tfds:NAME
  return name if colon and not of_table else None
