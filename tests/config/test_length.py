"""How long a run is: of epochs and total_steps the later counts, and what is typed."""

import math

import pytest
import tiny
from command_lines import run
from ml_collections import FrozenConfigDict

from asvit_jax.config import base, rules
from asvit_jax.core import recipes
from asvit_jax.core.errors import InputError
from asvit_jax.optimizers.schedule import total_steps

DIGITS = ("--config", str(recipes.directory() / "digits.py"), "--workdir", "w")


@pytest.fixture
def typed(monkeypatch):
  """Function of flags that returns the config that training gets."""

  def config(*arguments):
    monkeypatch.setattr("asvit_jax.training.train.train", lambda config, *_: {"config": config})
    return run("train", *arguments)["config"]

  return config


def test_epochs_set_after_the_steps_of_a_recipe_count_and_it_is_said(capsys):
  config = recipes.load("digits")
  assert total_steps(config, 12000) == 600
  config.epochs = 3
  assert total_steps(config, 12000) == math.ceil(3 * 12000 / 64)
  assert "epochs=3 replaces total_steps=600 as the run's length" in capsys.readouterr().err
  config.total_steps = 7
  assert total_steps(config, 12000) == 7


def test_what_comes_at_once_keeps_its_steps_in_any_order():
  config = recipes.load("digits")
  later = dict(reversed(config.to_dict().items()))
  for copy in (base(), recipes.load("digits")):
    copy.update(later)
    assert (copy.total_steps, copy.epochs) == (600, 30.0)
  copy.update_from_flattened_dict({"total_steps": 5, "epochs": 2.0})
  assert (copy.total_steps, copy.epochs) == (5, 2.0)
  copy.update({"epochs": 4.0})
  assert (copy.total_steps, copy.epochs) == (None, 4.0)
  for same in (config.copy_and_resolve_references(), FrozenConfigDict(config)):
    assert same.total_steps == 600


def test_typed_epochs_count_before_the_steps_of_a_recipe(typed):
  assert total_steps(typed(*DIGITS, "--config.epochs=3"), 12000) == 563
  assert total_steps(typed(*DIGITS, "--config.total_steps=None"), 12000) == 5625
  both = ("--config.epochs=3", "--config.total_steps=None")
  for arguments in (both, both[::-1]):
    assert total_steps(typed(*DIGITS, *arguments), 12000) == 563


@pytest.mark.parametrize("order", [1, -1])
def test_both_typed_contradict_each_other(typed, order, capsys):
  both = ("--config.epochs=3", "--config.total_steps=5")[::order]
  with pytest.raises(InputError, match=r"--config\.epochs=3 and --config\.total_steps=5 both set"):
    typed(*DIGITS, *both)
  assert capsys.readouterr().err == ""  # not also that one replaced the other


def test_every_key_that_may_be_left_open_can_be_typed_as_none(typed):
  config = typed(
    *("--config", f"{recipes.directory()}/as_deit_t_sample.py:0.5,merge", "--workdir", "w"),
    "--config.budget=None",
    *("--config.model.reduction=None", "--config.model.score_exponents=None"),
    *("--config.model.layer_scale=None", "--config.data.mean=None", "--config.model.width=None"),
  )
  found = (config.budget, config.model.reduction, config.model.score_exponents, config.data.mean)
  assert (*found, config.model.layer_scale, config.model.width) == (None,) * 6


def test_none_typed_where_a_value_is_needed_is_refused(typed):
  for key in ("seed", "epochs", "data.dir", "data.crop_scale", "model.remat"):
    config = typed(*DIGITS, f"--config.{key}=None")
    with pytest.raises(InputError, match=rf"^{key} None is not valid: expected a value"):
      rules.check(config)


def test_more_steps_than_can_be_counted_are_refused():
  config = tiny.config("", total_steps=None, epochs=1e30)
  with pytest.raises(InputError, match=r"epochs 1e\+30 .* expected at most 2,147,483,647 steps"):
    total_steps(config, 24)
