"""Configs and images from Python."""

import json

import pytest
import tiny

import asvit_jax
from asvit_jax import config as config_lib
from asvit_jax.core import recipes
from asvit_jax.core.errors import InputError


def test_a_recipe_is_that_of_the_command_line():
  assert asvit_jax.recipe("as_deit_s:0.5") == recipes.load("as_deit_s", "0.5")
  assert asvit_jax.recipe("as_deit_t_sample") == recipes.load("as_deit_t_sample")
  assert asvit_jax.recipe() == config_lib.base()


def test_keys_are_changed_by_path_or_by_section():
  dotted = asvit_jax.recipe("as_deit_s:0.5", batch_size=8, **{"model.width": 96, "data.dir": "D"})
  nested = asvit_jax.recipe("as_deit_s:0.5", batch_size=8, model={"width": 96}, data={"dir": "D"})
  assert dotted == nested
  assert (dotted.batch_size, dotted.model.width, dotted.data.dir) == (8, 96, "D")
  assert dotted.budget == 0.5
  json.dumps(dotted.to_dict())


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (dict(name="as_deit"), "recipe 'as_deit' is not known: choose from .*as_deit_s"),
    (dict(name=0.65), r"recipe 0\.65: expected a name"),
    (dict(name="as_deit_s:half"), "argument 'half': expected a share"),
    (dict(batch_siz=8), "config key 'batch_siz' is unknown.*batch_size"),
    ({"model.widht": 8}, r"config key 'model\.widht' is unknown.*model\.width"),
    (dict(model={"widht": 8}), r"config key 'model\.widht' is unknown"),
    (dict(batch_size="many"), "field 'batch_size' of the config is 'many'"),
  ],
)
def test_what_there_is_not_is_named(given, said):
  with pytest.raises(InputError, match=said):
    asvit_jax.recipe(**given)


def test_images_are_those_of_a_split(folder):
  config = tiny.config(folder)
  train, val = (asvit_jax.open_images(config, split) for split in ("train", "val"))
  assert len(asvit_jax.open_images(config)) == len(val)
  assert train.classes == val.classes
  assert {"image", "label", "file"} <= train[0].keys()
  with pytest.raises(InputError, match="tset"):
    asvit_jax.open_images(config, "tset")


@pytest.mark.usefixtures("tiny_variant")
def test_a_network_is_evaluated_and_drawn(folder):
  config = tiny.config(folder)
  network = tiny.network(tiny.TRAINED)
  images = asvit_jax.open_images(config)
  result = asvit_jax.evaluate(network, config, images, "masked")
  assert result["images"] == len(images)
  figure = asvit_jax.draw_tokens(network, config, images, count=2)
  assert len(figure.axes) == 2 * (1 + network.arch.stages)
  with pytest.raises(InputError, match="0 images: expected 1 to 32 in one picture"):
    asvit_jax.draw_tokens(network, config, images, count=0)
