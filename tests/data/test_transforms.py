import itertools

import numpy as np
import pytest
from image_sets import encode, smooth_image
from PIL import Image

from asvit_jax.core.sizes import height_width
from asvit_jax.data import transforms
from asvit_jax.data.preprocessing import INTERPOLATIONS, Preprocessing


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "LA"])
def test_every_colour_mode_decodes_to_rgb(mode):
  image = Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode)
  decoded = transforms.decode(encode(image, "JPEG" if mode == "CMYK" else "PNG"), "file")
  assert (decoded.mode, decoded.size) == ("RGB", (9, 7))
  assert np.asarray(decoded).min() > 250


def test_center_crop_is_resize_256_and_crop_224():
  image = smooth_image(np.random.default_rng(0), height=375, width=500)
  # torchvision: the longer side is int(256 · 500 / 375) = 341, the left edge round(58.5) = 58.
  expected = image.resize((341, 256), Image.Resampling.BICUBIC).crop((58, 16, 282, 240))
  np.testing.assert_array_equal(transforms.center_crop(image, 224, Preprocessing()), expected)


def test_center_crop_of_the_right_size_changes_nothing():
  image = smooth_image(np.random.default_rng(0), 48, 48)
  np.testing.assert_array_equal(
    transforms.center_crop(image, 48, Preprocessing(crop_ratio=1.0)), image
  )


@pytest.mark.parametrize("hw", [(120, 90), (90, 120), (64, 64), (300, 41)])
@pytest.mark.parametrize("crop_ratio", [1.0, 0.875, 0.6])
@pytest.mark.parametrize(
  ("size", "crop_mode"), [(56, "center"), ((56, 84), "center"), ((84, 56), "squash")]
)
def test_box_follows_the_center_crop(hw, crop_ratio, size, crop_mode):
  """A white rectangle, cropped as an image, lies where its box says."""
  pixels = np.zeros((*hw, 3), np.uint8)
  box = np.array([0.3, 0.4, 0.7, 0.95])
  y0, x0, y1, x1 = np.round(box.reshape(2, 2) * hw).astype(int).reshape(4)
  pixels[y0:y1, x0:x1] = 255
  exact = np.array([y0 / hw[0], x0 / hw[1], y1 / hw[0], x1 / hw[1]])
  preprocessing = Preprocessing(crop_ratio=crop_ratio, crop_mode=crop_mode)
  crop = np.asarray(transforms.center_crop(Image.fromarray(pixels), size, preprocessing))
  height, width = height_width(size)
  assert crop.shape == (height, width, 3)
  rows, columns = np.nonzero(crop[..., 0] > 127)
  seen = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
  ours = transforms.center_crop_box(exact, hw, size, preprocessing)
  np.testing.assert_allclose(ours * (height, width, height, width), seen, atol=1.0)


def test_a_rectangle_is_cut_as_timm_cuts_it():
  image = smooth_image(np.random.default_rng(0), height=375, width=500)
  # timm's ResizeKeepRatio to cover 256x512, then the centre: 375·512/500 = 384 rows.
  expected = image.resize((512, 384), Image.Resampling.BICUBIC).crop((32, 80, 480, 304))
  rectangle = transforms.center_crop(image, (224, 448), Preprocessing())
  np.testing.assert_array_equal(rectangle, expected)
  expected = image.resize((512, 256), Image.Resampling.BICUBIC).crop((32, 16, 480, 240))
  squashed = transforms.center_crop(image, "224x448", Preprocessing(crop_mode="squash"))
  np.testing.assert_array_equal(squashed, expected)


def test_random_crops_for_a_rectangle_keep_its_shape():
  image = smooth_image(np.random.default_rng(0), height=200, width=400)
  crop = transforms.random_resized_crop(
    image, (50, 100), np.random.default_rng(1), scale=(1.0, 1.0), ratio=(1.0, 1.0)
  )
  np.testing.assert_array_equal(crop, image.resize((100, 50), Image.Resampling.BICUBIC))


def test_box_outside_the_crop_is_empty():
  half = Preprocessing(crop_ratio=0.5)
  ymin, xmin, ymax, xmax = transforms.center_crop_box((0, 0, 0.1, 0.1), (50, 50), 20, half)
  assert (ymax - ymin) * (xmax - xmin) == 0


def crop_of_ramp(rng, height, width, **kwargs):
  """Crops an image whose pixels hold their coordinates; returns the crop's height and width."""
  y, x = np.mgrid[:height, :width]
  ramp = Image.fromarray(np.stack([y, x, 0 * x], -1).astype(np.uint8))
  crop = np.asarray(transforms.random_resized_crop(ramp, 64, rng, **kwargs)).astype(int)
  return (np.ptp(crop[..., i]) + 1 for i in (0, 1))


def test_random_resized_crop_keeps_area_and_aspect_in_range():
  rng = np.random.default_rng(0)
  shapes = np.array([[*crop_of_ramp(rng, 200, 250, scale=(0.2, 0.6))] for _ in range(200)])
  share, aspect = shapes.prod(1) / (200 * 250), shapes[:, 1] / shapes[:, 0]
  assert 0.18 < share.min() < 0.25
  assert 0.55 < share.max() < 0.62
  assert 0.72 < aspect.min() < 0.8
  assert 1.25 < aspect.max() < 1.38


def test_random_resized_crop_of_a_strip_falls_back_to_its_centre():
  height, width = crop_of_ramp(np.random.default_rng(0), 30, 240, scale=(1.0, 1.0))
  assert (height, width) == (30, 40)


def test_random_shift_moves_pixels_and_lets_black_in():
  image = Image.new("RGB", (20, 20))
  image.putpixel((10, 10), (255, 255, 255))
  rng = np.random.default_rng(0)
  shifted = [np.asarray(transforms.random_shift(image, 2, rng)) for _ in range(200)]
  places = {tuple(np.argwhere(s[..., 0])[0]) for s in shifted}
  assert places == set(itertools.product(range(8, 13), repeat=2))
  white = np.asarray(transforms.random_shift(Image.new("RGB", (8, 8), (255,) * 3), 3, rng))
  assert white.min() == 0


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_both_crops_resize_as_they_are_told(interpolation):
  image = smooth_image(np.random.default_rng(0), 60, 60)
  expected = image.resize((32, 32), Image.Resampling[interpolation.upper()])
  preprocessing = Preprocessing(crop_ratio=1.0, interpolation=interpolation)
  np.testing.assert_array_equal(transforms.center_crop(image, 32, preprocessing), expected)
  crop = transforms.random_resized_crop(
    image, 32, np.random.default_rng(0), (1.0, 1.0), (1.0, 1.0), interpolation
  )
  np.testing.assert_array_equal(crop, expected)
