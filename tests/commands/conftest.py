"""Fixtures of command lines whose weights are made once for all tests of a module."""

import pytest
import tiny

from asvit_jax.network import Network


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A directory of what all tests of a module read and none writes."""
  return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def one_folder(place):
  """A data set in `place`."""
  return tiny.write_folder(place / "images")


@pytest.fixture(scope="module")
def dense_flags(place, one_folder):
  """Function of changes of a config: flags for it and for dense weights, both in `place`."""

  def flags(**changes):
    weights = place / "dense.safetensors"
    Network(tiny.TRAINED, tiny.params(tiny.TRAINED.dense), variant="tiny").save(weights)
    recipe = tiny.write_recipe(place / "recipe.py", one_folder, **changes)
    return ("--config", recipe, "--weights", weights)

  return flags
