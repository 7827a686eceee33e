"""Keyword arguments of an optimizer or a criterion: keys of the config, or text as before."""

import json

import pytest
import tiny
from command_lines import answer

import asvit_jax
from asvit_jax.config import base, identity
from asvit_jax.config.defaults import Arguments
from asvit_jax.core.errors import InputError

BOTH = {"b1": 0.8, "betas": (1, 2)}


def given(config):
  return config.optimizer.arguments.to_dict()


@pytest.mark.parametrize("of", ["keys", "text", "dictionary", "update", "flat", "recipe"])
def test_every_way_to_give_them_says_the_same(of):
  config = base()
  if of == "keys":
    config.optimizer.arguments.b1 = 0.8
    config.optimizer.arguments.betas = (1, 2)
  elif of == "text":
    config.optimizer.arguments = "b1=0.8, betas=(1, 2)"
  elif of == "dictionary":
    config.optimizer.arguments = BOTH
  elif of == "update":
    config.update({"optimizer": {"arguments": "b1=0.8,betas=(1,2)"}})
  elif of == "flat":
    config.update_from_flattened_dict({f"optimizer.arguments.{k}": v for k, v in BOTH.items()})
  else:
    config = asvit_jax.recipe(**{f"optimizer.arguments.{k}": v for k, v in BOTH.items()})
  assert given(config) == BOTH
  copy = config.copy_and_resolve_references()
  assert isinstance(copy.optimizer.arguments, Arguments)
  assert given(copy) == tiny.plan(config).optimizer.arguments == BOTH
  config.optimizer.arguments = "b1=0.5"  # text sets them all anew
  assert given(config) == {"b1": 0.5}


WAYS = {
  "key": lambda c: setattr(c.optimizer.arguments, "b1", 0.8),
  "update": lambda c: c.update({"optimizer": {"arguments": {"b1": 0.8}}}),
  "update of the section": lambda c: c.optimizer.update({"arguments": {"b1": 0.8}}),
  "flat": lambda c: c.update_from_flattened_dict({"optimizer.arguments.b1": 0.8}),
  "assigned": lambda c: setattr(c.optimizer, "arguments", {"b1": 0.8}),
  "assigned text": lambda c: setattr(c.optimizer, "arguments", "b1=0.8"),
  "update with text": lambda c: c.update({"optimizer": {"arguments": "b1=0.8"}}),
}


@pytest.mark.parametrize("way", WAYS)
def test_assigning_and_text_replace_them_all_and_the_rest_keeps_the_others(way):
  config = base()
  config.optimizer.arguments.b2 = 0.5
  WAYS[way](config)
  replaces = "assigned" in way or "text" in way
  assert given(config) == ({"b1": 0.8} if replaces else {"b1": 0.8, "b2": 0.5})


@pytest.mark.parametrize(
  "changes",
  [
    {"optimizer.arguments.x": 1},
    {"optimizer.arguments": {"x": 1}},
    {"optimizer": {"arguments": {"x": 1}}},
    {"optimizer": {"arguments.x": 1}},
  ],
)
def test_a_recipe_keeps_its_other_arguments(changes):
  before = given(asvit_jax.recipe("digits"))
  assert given(asvit_jax.recipe("digits", **changes)) == before | {"x": 1} != {"x": 1}


def test_other_keys_of_the_section_are_locked_and_its_types_stay():
  config = base()
  with pytest.raises(AttributeError, match="locked"):
    config.optimizer.argument = 1
  with pytest.raises(InputError, match=r"optimizer\.arguments"):
    config.optimizer.arguments = 3


@pytest.mark.slow
@pytest.mark.parametrize(
  "flags",
  [
    ["--config.optimizer.arguments.beta=0.8", "--config.optimizer.arguments.nesterov"],
    ["--config.optimizer.arguments=beta=0.8,nesterov=True"],
    ["--config.optimizer.arguments=", "--config.optimizer.arguments.beta=0.8"],
  ],
)
def test_flags_set_them(tmp_path, folder, flags):
  data = (
    "--config.data.name=folder",
    f"--config.data.dir={folder}",
    "--config.data.eval_split=val",
  )
  small = (
    "--config.model.depth=2",
    "--config.model.prune_before=1",
    "--config.model.num_classes=3",
  )
  command = "train.py", "--config", "digits", "--workdir", tmp_path / "run", "--dry-run"
  plan = answer(*command, *data, *small, *flags)["plan"]
  found = plan["optimizer"]["arguments"]  # Muon's; the first sets one beside those of the recipe
  assert (found["beta"], found.get("nesterov", True)) == (0.8, True)
  assert ("consistent_rms" in found) == ("arguments=" not in flags[0])


def test_a_run_whose_config_has_them_as_text_goes_on(tmp_path):
  """As configs of before have them."""
  config = tiny.config("", **{"optimizer.arguments": "b1=0.8"})
  identity.save(tiny.plan(config), tmp_path)
  path = tmp_path / "config.json"
  content = json.loads(path.read_text())
  assert content["optimizer"]["arguments"] == {"b1": 0.8}
  content["optimizer"]["arguments"] = "b1=0.8"
  path.write_text(json.dumps(content))
  assert given(identity.load(tmp_path)) == {"b1": 0.8}
  identity.check_config(tiny.plan(config), tmp_path)
  for changed in ("b1=0.7", "b1=0.8,b2=0.9", ""):
    with pytest.raises(InputError, match=r"another config \(optimizer\.arguments\.b"):
      identity.check_config(tiny.plan_of("", **{"optimizer.arguments": changed}), tmp_path)
