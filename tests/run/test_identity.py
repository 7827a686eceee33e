"""What makes a run the same run."""

import dataclasses
import json

import pytest
import tiny

from asvit_jax.config import identity
from asvit_jax.config.model import trained_architecture
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.run import inputs

ARCH = tiny.TRAINED


def test_a_workdir_holds_one_run(tmp_path, tiny_variant):
  config = tiny.config("here", seed=3)
  identity.save(tiny.plan(config), tmp_path)
  assert identity.load(tmp_path).to_dict() == config.to_dict()
  for changes in ({"seed": 4}, {"total_steps": 7}, {"model.variant": "deit_t"}, {"budget": 0.5}):
    key, value = next(iter(changes.items()))
    with pytest.raises(InputError, match=f"another config \\({key} was .*, is {value!r}\\)"):
      identity.save(tiny.plan_of("here", **{"seed": 3} | changes), tmp_path)
  # Where the data lies and how often to report may change.
  identity.save(tiny.plan_of("there", seed=3, log_every=2), tmp_path)
  assert identity.load(tmp_path).data.dir == "there"


def test_what_is_no_workdir_is_refused(tmp_path):
  with pytest.raises(InputError, match=r"no config\.json"):
    identity.load(tmp_path)
  (tmp_path / "config.json").write_text('{"seed": 0, "sead": 1}')
  with pytest.raises(InputError, match="not a config of this version"):
    identity.load(tmp_path)
  (tmp_path / "config.json").write_text('{"seed": ')
  with pytest.raises(InputError, match="not a config of this version"):
    identity.load(tmp_path)


def test_a_config_of_your_own_network_comes_back_as_it_was(tmp_path):
  changes = {"model.variant": "mine", "model.width": 12, "model.heads": 3, "model.depth": 3}
  changes |= {"model.prune_before": (1, 2), "model.mlp_ratio": 2.0, "data.mean": (0.5, 0.4, 0.3)}
  config = tiny.config("", **changes)
  identity.save(tiny.plan(config), tmp_path)
  loaded = identity.load(tmp_path)
  assert loaded.to_dict() == config.to_dict()
  assert trained_architecture(loaded) == trained_architecture(config)
  identity.check_config(tiny.plan(config), tmp_path)


def test_a_config_of_before_has_the_defaults_of_what_came_later(tmp_path):
  config = tiny.config("", **{"data.crop_ratio": 0.875})
  identity.save(tiny.plan(config), tmp_path)
  path = tmp_path / "config.json"
  before = json.loads(path.read_text())
  for key in ("name", "arguments"):
    del before["optimizer"][key]
  for key in ("mean", "std", "interpolation", "exif_orientation", "sampler", "train_labels"):
    del before["data"][key]
  before["model"] = {k: v for k, v in before["model"].items() if v is not None}
  path.write_text(json.dumps(before))
  assert identity.load(tmp_path).to_dict() == config.to_dict()
  identity.check_config(tiny.plan_of(""), tmp_path)  # which leaves open what is the default
  changed = tiny.config("", **{"optimizer.name": "sgd"})
  with pytest.raises(InputError, match=r"optimizer\.name was 'adamw', is 'sgd'"):
    identity.check_config(tiny.plan(changed), tmp_path)


EDITS = {
  "batch_size": (8, 16),
  "total_steps": (6, 5),
  "model.drop_path": (0.0, 0.1),
  "data.crop_scale": ((0.08, 1.0), (0.5, 1.0)),
  "data.mine": ([1, 2], [1, 3]),
  "loss.budget": (1.0, 3.0),
  "optimizer.lr": (0.064, 0.128),
  "optimizer.arguments.b1": (0.8, 0.7),
  "log_every": (1, 2),
  "total_steps ": (6, 9),
}


@pytest.mark.parametrize("key", EDITS)
def test_a_config_that_was_edited_is_that_of_another_run(tmp_path, key):
  """The run resumes from --workdir alone, whose config.json is then the config that is given."""
  config = tiny.config(
    "", **{"optimizer.arguments.b1": 0.8, "loss.budget": EDITS["loss.budget"][0]}
  )
  with config.data.unlocked():
    config.data.mine = EDITS["data.mine"][0]
  plan = tiny.plan(config, 24)
  began = {"images": 24, "teacher": 0}
  identity.save_run(plan, tiny.network(ARCH).describe(), began, tmp_path)

  def resume():
    return identity.check_config(tiny.plan(identity.load(tmp_path)), tmp_path)

  assert resume().config.total_steps == 6
  path, (was, now) = tmp_path / "config.json", EDITS[key]
  content = json.loads(path.read_text())
  *sections, name = key.strip().split(".")
  section = content
  for part in sections:
    section = section[part]
  assert section[name] == (list(was) if isinstance(was, tuple) else was)
  section[name] = now
  path.write_text(json.dumps(content))
  if key == "log_every":  # may change
    assert resume().config.log_every == 2
  elif key == "total_steps ":  # an extension, which is said
    said = identity.describe_extension(tiny.plan(identity.load(tmp_path)), resume())
    assert said.startswith("extended from 6 to 9 steps")
  else:
    said = rf"{key} was .*, is .*\): restore the values that were, which plan\.json has"
    with pytest.raises(InputError, match="has 6 steps.* 5" if key == "total_steps" else said):
      resume()
    (tmp_path / "plan.json").unlink()  # a run of an older version
    assert resume().config.total_steps == (now if key == "total_steps" else 6)
  (tmp_path / "plan.json").write_text("[]")
  with pytest.raises(InputError, match=r"plan\.json is damaged"):
    resume()


def test_a_run_is_of_one_network(tmp_path):
  network = tiny.network(ARCH, variant="tiny", classes=("ant", "bee", "cat"))
  assert identity.load_description(tmp_path) == {}
  identity.check_network(network.describe(), tmp_path)  # nothing is there yet
  identity.save(tiny.plan_of(""), tmp_path, network.describe())
  assert identity.load_description(tmp_path) == network.describe()
  identity.check_network(network.describe(), tmp_path)
  other = dataclasses.replace(network, arch=dataclasses.replace(ARCH, prune_before=(1, 2)))
  with pytest.raises(
    InputError, match=r"another network \(prune_before was \[1, 2, 3\], is \[1, 2\]"
  ):
    identity.check_network(other.describe(), tmp_path)
  other = dataclasses.replace(network, preprocessing=Preprocessing(crop_ratio=0.9))
  with pytest.raises(InputError, match=r"another network \(crop_ratio was 0.875, is 0.9\)"):
    identity.check_network(other.describe(), tmp_path)


def test_the_classes_of_a_run_keep_their_order(tmp_path):
  """Directories that are numbers were once in the order of text."""
  network = tiny.network(ARCH, variant="tiny", classes=("1", "10", "2"))
  identity.save(tiny.plan_of(""), tmp_path, network.describe())
  for classes in (("one", "ten", "two"), None, ("1", "10", "2")):
    identity.check_network(dataclasses.replace(network, classes=classes).describe(), tmp_path)
  with pytest.raises(
    InputError, match=r"label 1 was '10', is '2'\): give --config.data.classes=.*network\.json"
  ):
    other = dataclasses.replace(network, classes=("1", "2", "10"))
    identity.check_network(other.describe(), tmp_path)


@pytest.mark.parametrize("name", ["network.json", "inputs.json"])
def test_damaged_files_of_a_run_are_named(tmp_path, name):
  (tmp_path / name).write_text('{"images": ')
  with pytest.raises(InputError, match=rf"{name} is damaged"):
    identity.check_network(tiny.network(ARCH).describe(), tmp_path)
    inputs.check({"images": 1, "teacher": 2}, tmp_path)


def test_a_run_is_of_the_images_and_the_teacher_it_began_with(tmp_path):
  began = inputs.describe([None] * 24, tiny.params(ARCH.dense))
  inputs.check(began, tmp_path)
  inputs.save(began, tmp_path)
  inputs.check(began, tmp_path)
  for source, params, message in (
    ([None] * 23, tiny.params(ARCH.dense), "began with 24 images to train on, now there are 23"),
    ([None] * 24, tiny.params(ARCH.dense, 1), "began with another teacher"),
  ):
    with pytest.raises(InputError, match=message):
      inputs.check(inputs.describe(source, params), tmp_path)
