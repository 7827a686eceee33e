"""Configs and images from Python."""

import json

import numpy as np
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
    (dict(name="digits:3"), "recipe digits takes no argument, but '3' was given"),
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


OF_OTHER_KINDS = (3, "x", {}, [], object(), np.zeros(3), type)


@pytest.mark.parametrize("value", [None, *OF_OTHER_KINDS], ids=lambda value: type(value).__name__)
def test_an_argument_of_another_kind_is_one_error_before_any_work(folder, value, monkeypatch):
  config, network = tiny.config(folder), tiny.network(tiny.TRAINED)
  images = asvit_jax.open_images(config)
  monkeypatch.setattr("asvit_jax.evaluation.accuracy.evaluate_each", None)  # the long work
  monkeypatch.setattr("asvit_jax.report.tokens.classify", None)
  for call in (asvit_jax.evaluate, asvit_jax.draw_tokens):
    for at, said in enumerate(("network is of type", "config is of type", "source is of type")):
      given = [network, config, images]
      given[at] = value
      with pytest.raises(InputError, match=f"^{said} {type(value).__name__}: expected"):
        call(*given)
    if value is not None:
      with pytest.raises(InputError, match=r"^execution .*: (expected|choose from)"):
        call(network, config, images, value)
  with pytest.raises(InputError, match=r"^config is of type"):
    asvit_jax.open_images(value)
  with pytest.raises(InputError, match=r"^arch .*: expected an Architecture|network 'x'"):
    asvit_jax.create(value)
  with pytest.raises(InputError, match=r"^network is of type"):
    asvit_jax.estimated_times(value, "tpu:v5e:1x1")
  with pytest.raises(InputError, match=r"^(--)?target "):
    asvit_jax.estimated_times(network, value)
  if value is None or isinstance(value, (str, int)):
    return
  for call in (
    lambda: asvit_jax.open_images(config, value),
    lambda: asvit_jax.recipe(value),
    lambda: asvit_jax.draw_tokens(network, config, images, count=value),
    lambda: asvit_jax.evaluate(network, config, images, per_image=value),
  ):
    with pytest.raises(InputError, match=": expected"):
      call()


def test_an_unknown_option_of_an_evaluation_is_one_error(folder):
  config, network = tiny.config(folder), tiny.network(tiny.TRAINED)
  images = asvit_jax.open_images(config)
  with pytest.raises(InputError, match=r"confuson is not known.*did you mean 'confusion'"):
    asvit_jax.evaluate(network, config, images, confuson=True)
  with pytest.raises(InputError, match=r"^stopped 3: expected a function"):
    asvit_jax.evaluate(network, config, images, stopped=3)
  for call in (asvit_jax.evaluate, asvit_jax.draw_tokens):
    with pytest.raises(InputError, match="has no thresholds"):
      call(network.dense, config, images, "masked")
  with config.unlocked():
    del config.data.dir
  with pytest.raises(InputError, match=r"no key data\.dir"):
    asvit_jax.open_images(config)


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
