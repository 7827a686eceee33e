"""Numbers of NumPy and JAX in configs, values of other types, and long ones, in errors."""

import copy
import pickle
import re

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from asvit_jax.config import base, rules
from asvit_jax.config.plan import resolve
from asvit_jax.core.errors import InputError

VALUES = {
  "batch_size": (np.int64(64), 64),
  "seed": (jnp.int32(3), 3),
  "budget": (np.float32(0.5), 0.5),
  "budget_range": (np.array([0.25, 0.75]), (0.25, 0.75)),
  "optimizer.lr": (np.float32(0.5), 0.5),
  "optimizer.end_lr": (np.array(0.25), 0.25),
  "optimizer.weight_decay": (np.float64(0.125), 0.125),
  "optimizer.clip_norm": (np.int8(1), 1.0),
  "data.mean": (np.array([0.5, 0.25, 0.5], np.float32), (0.5, 0.25, 0.5)),
  "data.std": ([np.float32(0.5)] * 3, (0.5, 0.5, 0.5)),
  "data.crop_scale": (jnp.array([0.5, 1.0]), (0.5, 1.0)),
  "data.hflip": (np.bool_(False), False),
  "model.image_size": (np.array([224, 448]), (224, 448)),
  "model.prune_before": (np.array([3, 6, 9]), (3, 6, 9)),
  "model.variant": (np.str_("deit_t"), "deit_t"),
}


def assign(config, key, value):
  section, _, field = key.rpartition(".")
  setattr(config[section] if section else config, field, value)


SET = {
  "assigned": assign,
  "flattened": lambda config, key, value: config.update_from_flattened_dict({key: value}),
  "typed": lambda config, key, value: config.update_from_flattened_dict({f"c.{key}": value}, "c."),
  "updated": lambda config, key, value: config.update(
    {key.split(".")[0]: {key.split(".")[1]: value} if "." in key else value}
  ),
}


def plain(value):
  """Whether a value is of Python's own types, all through."""
  if isinstance(value, tuple):
    return all(map(plain, value))
  return type(value) in (int, float, bool, str)


@pytest.mark.parametrize("how", SET)
def test_numbers_of_libraries_are_pythons_in_a_config(how):
  config = base()
  for key, (value, expected) in VALUES.items():
    SET[how](config, key, value)
    assert config[key] == expected
    assert plain(config[key]), key
  config.budget = config.budget_range = None
  rules.check(config)
  config.to_json()


@pytest.mark.parametrize("how", SET)
@pytest.mark.parametrize(
  ("key", "value", "said"),
  [
    ("batch_size", 64.0, "'batch_size' of the config is 64.0: expected a whole number"),
    ("batch_size", np.float32(64), "'batch_size' of the config is 64.0: expected a whole number"),
    ("model.remat", 1, "'model.remat' of the config is 1: expected True or False"),
    ("optimizer.lr", "fast", "'optimizer.lr' of the config is 'fast': expected a finite number"),
    ("optimizer.lr", np.zeros((2, 2)), "'optimizer.lr' of the config is ((0.0, 0.0),"),
    ("model.width", "wide", "'model.width' of the config is 'wide': expected a whole number"),
    ("loss.budget", "a", "'loss.budget' of the config is 'a': expected a finite number"),
    ("data.name", ["x" * 5000], "…: expected text"),
  ],
)
def test_values_of_another_type_are_one_line_by_the_name_of_their_key(how, key, value, said):
  config = base()
  for same in (config, copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
    with pytest.raises(InputError, match=re.escape(said)) as caught:
      SET[how](same, key, value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_sections_can_be_set_as_a_whole():
  values = {"batch_size": np.int64(8), "every": 2, "patience": 0, "pictures": 1}
  for section in (values, ConfigDict(values), base().eval):
    config = base()
    config.eval = section
    with pytest.raises(InputError, match=r"^field 'eval\.every' of the config is 'often'"):
      config.eval.every = "often"
  with pytest.raises(InputError, match=r"^field 'eval' of the config is 3: expected its keys"):
    config.eval = 3


@pytest.mark.parametrize(
  "changes",
  [
    {"criterion.class_weights": ",".join(["-1"] * 1000)},
    {"criterion.class_weights": ",".join(["nan"] * 1000)},
    {"criterion.arguments": "gamma='" + "1" * 3000 + "'", "criterion.name": "focal"},
    {"criterion.name": "x" * 3000},
    {"model.variant": "x" * 3000},
    {"model.image_size": "x" * 3000},
    {"model.stem": "x:" + "x" * 3000},
    {"data.mean": (7.0,) * 3000},
    {"model.prune_before": (1,) * 3000},
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_long_values_are_not_printed_for_pages(changes):
  config = base()
  config.update_from_flattened_dict(changes)
  with pytest.raises(InputError) as caught:
    resolve(config)
  assert len(str(caught.value)) < 1000, str(caught.value)
  assert "\n" not in str(caught.value)
