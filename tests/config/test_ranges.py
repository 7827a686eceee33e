"""Every key of a config has a range, and no value of any type gets past it as a traceback."""

import math
import re

import hanging
import numpy as np
import pytest
import tiny

from asvit_jax.config import base, identity, ranges, rules
from asvit_jax.config.keys import flatten
from asvit_jax.core.errors import InputError
from asvit_jax.vit import fields

pytestmark = pytest.mark.usefixtures("tiny_variant")

KEYS = tuple(flatten(base()))
HOSTILE = (
  *(-1, 0, 1, 2, -3, 7, 10**9, 10**30, -(10**30), 10**5000, 2**31, 2**63),
  *(0.0, -0.0, 0.5, -0.5, 1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, 1 - 1e-12),
  *("", " ", "x", "\0", "a\0b", "x" * 5000, "\udc80", "\x1b]0;t\x07", "None", "[", ":", "a:", ":b"),
  *("a{99999999999}", "(" * 3000, "os:system", "asvit_jax.core:none", ".x:y", "0", "1x0", "-1"),
  *([], (), (1,), (1, 2), (2, 1), (1.0, "a"), (None, 1), ((1, 2), 3), (0.1, 0.2, 0.3, 0.4)),
  *((math.nan, 1.0), (math.nan,) * 3, (0, 0, 0), (-1, 5, 9), [1, 2, 3], (10**30, 10**31)),
  *({}, {"a": 1}, None, True, False, object(), b"x", 1j, range(3), np.zeros(3), np.ones((2, 2))),
  *(np.float32(0.5), np.int64(4), np.bool_(True), np.float64("nan"), np.array("x"), type, len),
)


def trained(**changes):
  """A config that passes, of a pruned network, with every change, of any type."""
  config = tiny.config("data", budget=0.6, init_from="w.safetensors")
  with config.unlocked():
    for key, value in changes.items():
      *sections, name = key.split(".")
      section = config
      for part in sections:
        section = section[part]
      del section[name]  # or a value of another type would not get there
      section[name] = value
  return config


def test_every_key_has_a_range_that_its_default_is_in():
  defaults = flatten(base())
  assert {key for key in defaults if ranges.of(key) is None} == set()
  for key, default in defaults.items():
    ranges.of(key).check(key, default)
  assert set(ranges.RANGES) <= set(defaults)


@pytest.mark.parametrize("key", tiny.few(KEYS, *KEYS[::6]))
def test_no_value_of_any_type_is_more_than_one_line(tmp_path, key):
  """It is refused in a line that names its key or goes with it; or it is a config, also as JSON."""
  for value in HOSTILE:
    try:
      ranges.of(key).check(key, value)
      config = trained(**{key: value})
      rules.check(config)
    except InputError as error:
      assert "\n" not in str(error) and len(str(error)) < 6000
      assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*", str(error)), str(error)
    else:
      identity.save(tiny.plan(config), tmp_path / str(len(list(tmp_path.iterdir()))))


@pytest.mark.parametrize(
  ("key", "value", "expected"),
  [
    ("seed", -1, "at least 0"),
    ("seed", True, "a whole number"),
    ("data.check_images", -1, "at least 0"),
    ("data.workers", -1, "at least 0"),
    ("data.shift", -3, "at least 0"),
    ("eval.pictures", -1, "at least 0"),
    ("total_steps", 10**30, r"at most 2,147,483,647, or None"),
    ("batch_size", 10**9, "at most 1,048,576"),
    ("epochs", math.inf, "a finite number"),
    ("mix.mixup", math.inf, "a finite number"),
    ("loss.budget", math.nan, "a finite number"),
    ("temperature", 1e-300, "a finite number that float32 can hold"),
    ("model.remat", 1, "True or False"),
    ("data.crop_scale", (1, "a"), "numbers"),
    ("data.std", (0.1, 0.1, math.nan), "numbers"),
    ("data.dir", "a\0b", "none of them NUL"),
    ("optimizer.freeze", "a{99999999999}", "a regular expression"),
    ("model.score", ":", None),
    ("model.stem", "os:system", None),
  ],
)
def test_values_that_were_let_pass_are_refused_by_name(key, value, expected):
  with pytest.raises(InputError) as refused:
    rules.check(trained(**{key: value}))
  said = str(refused.value)
  assert said.startswith(key)
  if expected is not None:
    assert re.search(rf"is not valid: expected .*{expected}", said)


@pytest.mark.parametrize("value", ["pmup", 3])
def test_the_choices_of_a_key_are_said_once(value):
  with pytest.raises(InputError, match=r"^parallel .* not valid: expected pmap or shard_map$"):
    rules.check(trained(parallel=value))
  with pytest.raises(InputError, match=r"is 3: expected pmap or shard_map$"):
    base().parallel = 3
  with pytest.raises(InputError, match=r"expected center or squash, or None$"):
    rules.check(trained(**{"data.crop_mode": value}))


@pytest.mark.parametrize("name", [*fields.WHOLE, *fields.NUMBERS, "image_size", "prune_before"])
def test_what_a_range_of_a_model_promises_a_network_can_have(name):
  key = "model.num_classes" if name == "classes" else f"model.{name}"
  most = fields.WHOLE.get(name) or fields.NUMBERS.get(name, (0, fields.MOST_SIDE))[1]
  value, more = most, most + 1
  if name == "prune_before":
    value, more = (1, fields.WHOLE["depth"] - 1), (1, fields.WHOLE["depth"])
  ranges.of(key).check(key, value)
  assert fields.plain({name: value})[name] == value
  with pytest.raises(InputError, match=f"^{re.escape(key)} .*: expected"):
    ranges.of(key).check(key, more)


def test_a_config_that_is_none_is_refused():
  for config in (None, {}, {"seed": 0}, 3, "digits"):
    with pytest.raises(InputError, match=r"expected a changed copy of asvit_jax\.config\.base\(\)"):
      rules.check(config)
  config = trained(model=3)
  with pytest.raises(InputError, match=r"the config has no key model\."):
    rules.check(config)


@pytest.mark.slow
def test_a_pattern_that_is_searched_for_without_end_is_refused_in_time(monkeypatch):
  monkeypatch.setattr(rules, "_FREEZE_SECONDS", 2)
  rules.check(trained(**{"optimizer.freeze": r"^patch_embed|blocks\.[01]\..*kernel"}))
  with hanging.never():
    for pattern in (r"(.+)+!", r"((\w|\.)+)+((\w|\.)+)+!"):
      with pytest.raises(InputError, match=r"^optimizer\.freeze .* simplify it"):
        rules.check(trained(**{"optimizer.freeze": pattern}))


def test_a_network_that_no_device_holds_is_refused_before_it_is_made():
  changes = {"model.width": 2**14, "model.depth": 512, "model.heads": 1}
  with pytest.raises(InputError, match=r"make a network of .* parameters: expected at most"):
    rules.check_evaluation(trained(**changes))


def test_what_only_training_reads_is_not_asked_of_an_evaluation():
  rules.check_evaluation(trained(**{"seed": -1, "batch_size": 7, "optimizer.lr": 0.0}))
