"""Which keys of a config choose parts by name, and what of one's own they name."""

from asvit_jax.core.parts import refuse
from asvit_jax.data.sources import SOURCES

# What needs them: a network that runs, an evaluation, a training.
NETWORK = ("model.stem", "model.attention", "model.score", "model.reduction")
EVALUATION = (*NETWORK, "data.name")
TRAINING = (*EVALUATION, "criterion.name", "optimizer.name")


def own(config):
  """The names in a config, a frozenset, that are in no table: `package.module:object`.

  Args:
    config: see `config.base`, or `Plan.given`.
  """
  return frozenset(filter(None, (_own(config, key) for key in TRAINING)))


def check(config, source, typed, needed, instead):
  """Raises InputError where a config that a file held names code that nobody typed.

  Args:
    config: see `config.base`. Names of parts that are not needed are replaced in it, so that
      nothing that comes later could import them.
    source: the file, for the error.
    typed: names of parts of their own that the user typed, see `core.parts.typed`.
    needed: the keys whose parts will run.
    instead: a config with the names that take their places.
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
