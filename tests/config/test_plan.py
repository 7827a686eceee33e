"""The plan of a run: what `resolve` makes of a config, and what completes it."""

import dataclasses
import json
import pickle

import pytest
import tiny

from asvit_jax import vit
from asvit_jax.config import base, identity
from asvit_jax.config.keys import flatten
from asvit_jax.config.plan import Plan, resolve
from asvit_jax.core import recipes
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.training.train import train

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.mark.parametrize("name", recipes.names())
def test_every_key_of_a_recipe_is_in_its_plan_under_the_same_name(name):
  config = recipes.load(name)
  plan = resolve(config, trains=False)
  ours = set(vit.Architecture.__dataclass_fields__) | {"num_classes", "image_size", "patch_size"}
  for key, value in flatten(config).items():
    section, _, field = key.rpartition(".")
    if section == "model" and field in ours:
      continue  # `arch` has it
    if section.endswith(".arguments"):
      assert getattr(plan, section.partition(".")[0]).arguments[field] == value
      continue
    of = getattr(plan, section) if section else plan
    assert (of[field] if isinstance(of, dict) else getattr(of, field)) == value, key


def test_it_is_frozen_and_travels():
  plan = tiny.plan_of("", **{"optimizer.arguments": "b1=0.8"})
  with pytest.raises(dataclasses.FrozenInstanceError):
    plan.batch_size = 4
  assert pickle.loads(pickle.dumps(plan)) == plan
  assert json.loads(json.dumps(plan.to_json())) == plan.to_json()
  assert "optimizer.arguments.b1 0.8" in plan.describe().splitlines()


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"batchsize": 8}, "no value 'batchsize'; did you mean 'batch_size'"),
    ({"eval.batchsize": 8}, r"no value 'eval\.batchsize'; did you mean 'eval\.batch_size'"),
    ({"evl.batch_size": 8}, r"'evl\.batch_size'; did you mean"),
    ({"seed.x": 8}, r"'seed\.x'; did you mean 'seed'"),
    ({"loss.budgt": 8}, r"'loss\.budgt'; did you mean 'loss\.budget'"),
  ],
)
def test_a_copy_with_a_value_that_there_is_not_is_refused(changes, said):
  with pytest.raises(InputError, match=said):
    tiny.plan_of("").replace(**changes)


def test_a_copy_has_other_values_in_its_sections_and_the_first_stays():
  plan = tiny.plan_of("")
  other = plan.replace(batch_size=16, **{"eval.batch_size": 2, "data.workers": 3})
  assert (other.batch_size, other.eval.batch_size, other.data.workers) == (16, 2, 3)
  assert (plan.batch_size, plan.eval.batch_size, plan.data.workers) == (8, 4, 0)
  assert other.replace(batch_size=8, **{"eval.batch_size": 4, "data.workers": 0}) == plan


def test_images_and_weights_complete_it():
  plan = tiny.plan_of("", budget=0.6, total_steps=None, epochs=2.0)
  assert (plan.steps, plan.schedule) == (None, None)
  assert plan.target_gmacs == 0.6 * dense_gmacs(tiny.TRAINED)
  counted = plan.of_images(24)
  assert (counted.steps, counted.schedule.decay_steps) == (6, 6)
  arch = dataclasses.replace(tiny.TRAINED, prune_before=(2,))
  complete = counted.of_network(arch, Preprocessing(crop_ratio=0.5), (1.0, 2.0, 3.0))
  assert (complete.arch, complete.steps, complete.preprocessing.crop_ratio) == (arch, 6, 0.5)
  assert complete.target_gmacs == 0.6 * dense_gmacs(arch)


def test_what_an_evaluation_does_not_read_is_not_checked_for_it():
  config = tiny.config("", **{"batch_size": 7, "optimizer.name": "nobody's", "accumulate": 3})
  assert isinstance(resolve(config, trains=False), Plan)
  with pytest.raises(InputError, match=r"accumulate 3"):
    resolve(config)
  with pytest.raises(InputError, match=r"optimizer\.name .*nobody's"):
    resolve(tiny.config("", **{"optimizer.name": "nobody's"}))
  with pytest.raises(InputError, match=r"the config is of type dict"):
    resolve(base().to_dict())


def test_keys_that_somebody_added_reach_their_source():
  config = tiny.config("")
  with config.unlocked():
    config.data.mine = "here"
  plan = resolve(config)
  assert plan.data.mine == plan.data.get("mine") == "here"
  assert plan.data.get("other", 3) == 3
  with pytest.raises(AttributeError, match=r"config\.data has no key 'other'"):
    _ = plan.data.other
  assert pickle.loads(pickle.dumps(plan.data)).mine == "here"


@pytest.mark.parametrize(
  ("value", "other"),
  tiny.few(
    [(3, 4), (("a", "b"), ("b", "a")), ({"a": 1}, {"a": 2}), (None, "here")], ({"a": 1}, {"a": 2})
  ),
)
def test_a_run_with_a_key_of_the_user_s_own_is_opened_again(tmp_path, folder, value, other):
  config = tiny.config(folder, total_steps=1, **{"eval.pictures": 0})
  with config.data.unlocked():
    config.data.mine = value
  train(config, tmp_path / "run")
  again = identity.load(tmp_path / "run")
  assert resolve(again).data.mine == value
  assert train(again, tmp_path / "run")["step"] == 1
  with again.data.unlocked():
    again.data.mine = other
  with pytest.raises(InputError, match=r"run of another config \(data\.mine"):
    train(again, tmp_path / "run")


def test_what_could_not_be_kept_is_refused_before_a_run(tmp_path, folder):
  for key, value, said in (
    ("data", object(), r"data\.mine .* cannot be kept in the run's config\.json"),
    ("data", tmp_path, r"give a path as text"),
    ("eval", 3, r"the config has a key eval\.mine, which nothing reads"),
  ):
    config = tiny.config(folder)
    with config.unlocked():
      config[key].mine = value
    with pytest.raises(InputError, match=said):
      train(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_workdir_keeps_it_and_a_dry_run_prints_it(tmp_path, folder):
  config = tiny.config(folder, total_steps=1, **{"eval.pictures": 0})
  train(config, tmp_path / "run")
  kept = json.loads((tmp_path / "run" / "plan.json").read_text())
  assert (kept["steps"], kept["arch"]["depth"], kept["batch_size"]) == (1, 4, 8)
  assert train(config, tmp_path / "other", dry_run=True)["plan"] == kept
  assert not (tmp_path / "other").exists()
