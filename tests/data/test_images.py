"""Image files that are given by their paths."""

import numpy as np
import pytest
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import images, transforms
from asvit_jax.data.preprocessing import Preprocessing


@pytest.fixture
def files(folder):
  return images.find(folder)


def test_images_are_found_in_all_directories_below_by_their_suffix(folder, files):
  (folder / "train" / "notes.txt").write_text("")
  assert images.find(folder) == files == sorted(files)
  assert len(files) == 16
  assert {file.suffix for file in files} == {".JPG", ".png"}
  assert images.find(folder / "nowhere") == []


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_image_is_loaded_as_the_network_expects(files, interpolation):
  preprocessing = Preprocessing(crop_ratio=0.7, interpolation=interpolation)
  expected = transforms.center_crop(Image.open(files[0]).convert("RGB"), 24, preprocessing)
  loaded = images.load_image(files[0], 24, preprocessing)
  assert (loaded.shape, loaded.dtype) == ((24, 24, 3), np.uint8)
  np.testing.assert_array_equal(loaded, expected)


def test_files_without_labels_are_a_source(files):
  source = images.ImageFiles([str(file) for file in files], ["a", "b"])
  assert (len(source), source.classes) == (16, ("a", "b"))
  example = source[3]
  assert (example["label"], example["file"]) == (-1, str(files[3]))
  assert example["image"] == files[3].read_bytes()


def test_a_file_that_is_no_image_is_named(files, tmp_path):
  images.check_files(files)
  missing, text = tmp_path / "missing.jpg", tmp_path / "text.jpg"
  text.write_text("not an image")
  for path, reason in ((missing, "No such file"), (text, "no known image format")):
    with pytest.raises(
      InputError, match=rf"image .*{path.name} cannot be read \({reason}.*check the path"
    ):
      images.check_files([*files, path])
  with pytest.raises(
    InputError, match=r"missing\.jpg cannot be read \(No such file.*check the path"
  ):
    images.load_image(missing, 24, Preprocessing())
  with pytest.raises(
    InputError, match=r"missing\.jpg cannot be read \(No such file.*check the path"
  ):
    images.ImageFiles([missing], [])[0]
  with pytest.raises(InputError, match=r"text\.jpg is not a readable image"):
    images.load_image(text, 24, Preprocessing())


def test_an_image_too_large_to_decode_is_named(files, monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
  with pytest.raises(InputError, match=r"is too large .*: make it smaller"):
    images.check_files(files)
