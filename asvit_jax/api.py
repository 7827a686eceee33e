"""The commands as Python functions, which take a config instead of flags.

They resolve the config; the functions below them take its `Plan`.
"""

import numbers
import os

from ml_collections import ConfigDict

from asvit_jax.config.defaults import base
from asvit_jax.config.keys import flatten
from asvit_jax.core import keywords, recipes
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import shown
from asvit_jax.data import sources


def recipe(name=None, **changes):
  """The config of a recipe, with keys changed: `recipe("as_deit_s:0.65", **{"data.dir": DIR})`.

  Args:
    name: name of a file in `configs/`, with its argument after a colon; the defaults by default.
    **changes: values by dotted key, as in `--config.KEY=VALUE`; or a dictionary of keys for a
      section, `recipe(model={"variant": "deit_t"})`, whose other keys stay.

  Returns:
    A config for `asvit_jax.train`, `open_images`, `evaluate` and `draw_tokens`.

  Raises:
    InputError: an unknown recipe, an invalid argument of it, or an unknown key.
  """
  if name is not None and not isinstance(name, str):
    raise InputError(f"recipe {shown(name)}: expected a name, such as 'as_deit_s:0.65', or None")
  config = base() if name is None else recipes.load(*name.split(":", 1))
  flat = flatten(changes)
  known = set(_keys(config))
  for key in flat:
    if key not in known and not key.startswith(("optimizer.arguments.", "criterion.arguments.")):
      raise InputError(
        f"config key {shown(key)} is unknown: asvit_jax/config/defaults.py lists all keys"
        f"{hint(key, known)}"
      )
  config.update_from_flattened_dict(flat)
  return config


def evaluate(network, config, source, execution=None, **options):
  """Accuracy, compute and kept tokens of a network on a data set, as `evaluate.py` prints them.

  Args:
    network: a `Network`.
    config: a config of `recipe`, of which `data` and `eval.batch_size` are read.
    source: a source of `open_images`.
    execution: a name of `EXECUTIONS`; by default packed if the network prunes, else dense.
    **options: see `evaluation.accuracy.evaluate`.

  Returns:
    Dictionary, see `evaluation.accuracy.evaluate`.

  Raises:
    InputError: an argument of another kind, an invalid config, or as
      `evaluation.accuracy.evaluate`.
  """
  from asvit_jax.config.plan import resolve
  from asvit_jax.evaluation import accuracy

  _check_network(network)
  _check_config(config)
  _check_source(source)
  ours = ("network", "plan", "source", "execution")
  keywords.check(accuracy.evaluate, options, "evaluate", ours)
  if not isinstance(options.get("per_image"), (str, os.PathLike, type(None))):
    raise InputError(f"per_image {shown(options['per_image'])}: expected the path of a file")
  if not (options.get("stopped") is None or callable(options["stopped"])):
    raise InputError(f"stopped {shown(options['stopped'])}: expected a function, or None")
  if execution is not None:
    network.check_execution(execution)
  plan = resolve(config, trains=False)
  return accuracy.evaluate(network, plan, source, execution, **options)


def draw_tokens(network, config, source, execution="masked", count=None):
  """Runs a pruned network on images and draws the tokens that each stage keeps.

  Args:
    network: a `Network` that prunes.
    config: a config of `recipe`, of which `data` is read.
    source: a source of `open_images`.
    execution: "masked" or "fixed".
    count: number of images to draw, evenly spaced in the source; all images by default.

  Returns:
    matplotlib `Figure`.

  Raises:
    InputError: an argument of another kind, an invalid config, or as `report.tokens.draw_tokens`.
  """
  from asvit_jax.config.plan import resolve
  from asvit_jax.report import tokens

  _check_network(network)
  _check_config(config)
  _check_source(source)
  if not isinstance(execution, str) or execution not in ("masked", "fixed"):
    raise InputError(f"execution {shown(execution)} of a picture: expected 'masked' or 'fixed'")
  network.check_execution(execution)
  if not (count is None or isinstance(count, numbers.Integral)):
    raise InputError(f"count {shown(count)}: expected a number of images, or None for all")
  return tokens.draw_tokens(network, resolve(config, trains=False), source, execution, count)


def open_images(config, split=None):
  """The labelled images of a config's data set.

  Args:
    config: a config of `recipe`, of which `data` is read.
    split: name of the split; `data.eval_split` by default.

  Returns:
    A `data.sources.Source` with `len()` and `classes`, the names by label; its items are
    dictionaries of `image` (encoded), `label` and `file`.

  Raises:
    InputError: an argument of another kind; the data is missing, or does not fit the config.
  """
  _check_config(config)
  if not (split is None or isinstance(split, str)):
    raise InputError(f"split {shown(split)}: expected its name, such as 'val', or None")
  return sources.open_source(config.data, split or config.data.eval_split, allow_flat=True)


def _check_network(network):
  from asvit_jax.network import Network

  if not isinstance(network, Network):
    raise InputError(
      f"network is of type {type(network).__name__}: expected a Network, such as asvit_jax.load "
      "returns"
    )


def _check_config(config):
  if not isinstance(config, ConfigDict):
    raise InputError(
      f"config is of type {type(config).__name__}: expected a config, such as asvit_jax.recipe "
      "returns"
    )
  data = config.get("data")
  missing = [key for key in base().data if not isinstance(data, ConfigDict) or key not in data]
  if missing:
    raise InputError(
      f"the config has no key data.{missing[0]}: start from asvit_jax.recipe(), which has all keys"
    )


def _check_source(source):
  if not all(hasattr(source, name) for name in ("__len__", "__getitem__", "classes")):
    raise InputError(
      f"source is of type {type(source).__name__}: expected labelled images, such as "
      "asvit_jax.open_images returns"
    )


def _keys(config, prefix=""):
  for key, value in config.items():
    yield f"{prefix}{key}"
    if hasattr(value, "items"):
      yield from _keys(value, f"{prefix}{key}.")
