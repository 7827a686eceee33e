import image_sets
import pytest

from asvit_jax.data import digits


@pytest.fixture
def folder(tmp_path):
  """A data set of 11 training and 5 validation images, see `image_sets.write_folder`."""
  return image_sets.write_folder(tmp_path)


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory):
  """The builder of 200 training and 60 validation digits."""
  return digits.prepare(tmp_path_factory.mktemp("digits"), train_images=200, val_images=60)
