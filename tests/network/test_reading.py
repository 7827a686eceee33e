"""What `Network.read` takes: directories, files and iterables of files; all else gets one line."""

import pathlib

import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax.core.errors import InputError


@pytest.fixture(scope="module")
def network():
  return tiny.network(tiny.TRAINED)


@pytest.fixture
def photo(tmp_path, monkeypatch):
  pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
  Image.fromarray(pixels).save(tmp_path / "photo.png")
  monkeypatch.chdir(tmp_path)
  return tmp_path / "photo.png"


GIVEN = {
  "a directory": lambda path: path.parent,
  "as text": lambda path: str(path.parent),
  "bytes": lambda path: bytes(path),
  "a file": lambda path: path,
  "a file as text": lambda path: "photo.png",
  "a list": lambda path: [path],
  "a generator": lambda path: (str(p) for p in [path]),
  "a glob": lambda path: path.parent.glob("*.png"),
  "an array": lambda path: np.array([str(path)]),
  "an array of objects": lambda path: np.array([path], dtype=object),
  "a set": lambda path: {path},
  "keys": lambda path: {path: 0}.keys(),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_paths_of_any_kind_are_read(network, photo, kind):
  images = network.read(GIVEN[kind](photo))
  assert (images.shape, images.dtype) == ((1, 16, 16, 3), np.uint8)
  np.testing.assert_array_equal(images, network.read([photo]))


REFUSED = {
  "None": (None, "images to read are None: expected a directory"),
  "a number": (3, "images to read are 3: expected a directory"),
  "a PIL image": (Image.new("RGB", (4, 4)), "images to read are of type PIL.Image.Image"),
  "an array of one": (np.array("photo.png"), "images to read are of type numpy.ndarray"),
  "a list of None": ([None], "image 0 of those to read is None"),
  "a list of numbers": (["photo.png", 3], "image 1 of those to read is 3"),
  "a list of images": ([Image.new("RGB", (4, 4))], r"type PIL.Image.Image: .*network\(images\)"),
  "pixels": (
    np.zeros((1, 16, 16, 3), np.uint8),
    "image 0 of those to read is of type numpy.ndarray",
  ),
  "no text": ("", "the path of images is empty"),
  "a list of no text": (["photo.png", ""], "image 1 of those to read is empty"),
  "nothing": ([], "no image files to read"),
  "nothing found": (pathlib.Path().glob("*.nothing"), "no image files to read"),
  "no such place": ("nowhere", "nowhere: no image files found"),
  "a directory in a list": (["."], r"image \. cannot be read"),
  "a null character": ("a\0b", "no path has a null character"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_path_is_refused_in_one_line(network, photo, kind):
  given, said = REFUSED[kind]
  with pytest.raises(InputError, match=said) as caught:
    network.read(given)
  assert "\n" not in str(caught.value)
