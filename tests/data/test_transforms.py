import io
import itertools
import struct

import numpy as np
import pytest
from image_sets import encode, smooth_image
from PIL import Image, ImageOps

from asvit_jax.core import progress
from asvit_jax.core.errors import InputError
from asvit_jax.core.sizes import height_width
from asvit_jax.data import transforms
from asvit_jax.data.preprocessing import INTERPOLATIONS, Preprocessing


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "LA", "YCbCr", "LAB"])
def test_every_colour_mode_decodes_to_rgb(mode):
  image = Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode)
  form = {"CMYK": "JPEG", "YCbCr": "JPEG", "LAB": "TIFF"}.get(mode, "PNG")
  decoded = transforms.decode(encode(image, form), "file")
  assert (decoded.mode, decoded.size) == ("RGB", (9, 7))
  assert np.asarray(decoded).min() > 250


GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)  # what 8 bits would say
DEEP = {
  "16 bits, PNG": (np.uint16, 257, "PNG", {}),
  "16 bits, high byte alone": (np.uint16, 256, "PNG", {}),
  "16 bits, TIFF": (np.uint16, 257, "TIFF", {}),
  "16 bits, JPEG 2000": (np.uint16, 257, "JPEG2000", {}),
  "16 bits, PGM": (np.uint16, 257, "PPM", {}),
  "32 bits": (np.int32, 1, "TIFF", {}),
  "16 of 32 bits": (np.int32, 257, "TIFF", {}),
  "floats to 1": (np.float32, 1 / 255, "TIFF", {}),
  "floats to 255": (np.float32, 1, "TIFF", {}),
  "floats to 65535": (np.float32, 257, "TIFF", {}),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_pixels_are_scaled_by_their_range(kind):
  dtype, scale, form, options = DEEP[kind]
  pixels = (GREY * np.float64(scale)).astype(dtype)
  decoded = transforms.decode(encode(Image.fromarray(pixels), form, **options), "file")
  np.testing.assert_array_equal(decoded, np.repeat(GREY[..., None], 3, axis=-1))


def test_twelve_bits_stored_as_sixteen_are_said_to_be_dark(capsys, monkeypatch):
  monkeypatch.setattr(progress, "_said", set())
  dark = "WARNING: b.png has 16-bit pixels, but none above 3,808"
  for scale, expected in ((0, ""), (257, ""), (16, dark), (16, "")):  # once
    image = Image.fromarray(GREY.astype(np.uint16) * scale)
    decoded = transforms.decode(encode(image, "PNG"), "b.png")
    assert np.asarray(decoded).max() == 238 * scale // 256
    said = capsys.readouterr().err
    assert said.startswith(expected)
    assert bool(said) == bool(expected)


def test_deep_pixels_of_which_white_is_zero_are_turned_round():
  image = Image.fromarray(65535 - GREY.astype(np.uint16) * 257)
  decoded = transforms.decode(encode(image, "TIFF", tiffinfo={262: 0}), "file")
  np.testing.assert_array_equal(np.asarray(decoded)[..., 0], GREY)


def test_twelve_bits_are_no_sixteen():
  values = GREY.reshape(-1, 2).astype(int) * 16
  packed = [(a >> 4, (a & 15) << 4 | b >> 8, b & 255) for a, b in values.tolist()]
  tiff = encode(Image.fromarray(GREY), "TIFF")
  with Image.open(io.BytesIO(tiff)) as image:
    offset = image.tag_v2[273][0]
  entry = tiff.index(struct.pack("<HHL", 258, 3, 1))  # bits a sample
  twelve = tiff[: entry + 8] + struct.pack("<L", 12) + tiff[entry + 12 : offset]
  pixels = bytes(byte for triple in packed for byte in triple)
  count = tiff.index(struct.pack("<HHL", 279, 4, 1))  # bytes of the strip
  twelve = twelve[: count + 8] + struct.pack("<L", len(pixels)) + twelve[count + 12 :] + pixels
  with Image.open(io.BytesIO(twelve)) as image:
    assert image.mode == "I;16"
  np.testing.assert_array_equal(np.asarray(transforms.decode(twelve, "file"))[..., 0], GREY)


@pytest.mark.parametrize(
  ("pixels", "said"),
  [
    (np.float32([[0, 70000]]), "mode F, with pixels from 0 to 70000"),
    (np.float32([[-1, 1]]), "mode F, with pixels from -1 to 1"),
    (np.float32([[0, np.nan]]), "mode F, with pixels from nan to nan"),
    (np.int32([[0, 2**30]]), "mode I, with pixels from 0 to 1.07374e"),
  ],
)
def test_deep_pixels_without_a_known_range_are_refused_by_name(pixels, said):
  with pytest.raises(InputError, match=rf"deep\.tif is not a readable image .*{said}"):
    transforms.decode(encode(Image.fromarray(pixels), "TIFF"), "deep.tif")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
def test_images_are_turned_as_their_camera_says_unless_told_otherwise(form):
  image = smooth_image(np.random.default_rng(0), 40, 64)
  for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(image, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    with Image.open(io.BytesIO(encoded)) as stored:
      stored.load()
      expected = ImageOps.exif_transpose(stored)
      np.testing.assert_array_equal(transforms.decode(encoded, "file"), expected)
      if form != "TIFF":  # which PIL itself turns
        np.testing.assert_array_equal(transforms.decode(encoded, "file", False), stored)


def test_damaged_exif_data_says_nothing():
  image = smooth_image(np.random.default_rng(0), 40, 64)
  encoded = encode(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05 cut")
  assert transforms.decode(encoded, "file").size == (64, 40)


def test_a_thin_image_is_cut_before_it_is_resized():
  """Whole, 1 by 60,000 pixels would be 256 by 15,360,000."""
  ramp = np.linspace(0, 255, 60_000).astype(np.uint8)
  for pixels in (ramp[None], ramp[:, None]):
    crop = np.asarray(transforms.center_crop(Image.fromarray(pixels), 224, Preprocessing()))
    assert crop.shape == (224, 224)
    assert set(np.unique(crop)) <= {127, 128}
  image = smooth_image(np.random.default_rng(0), 30, 30 * 17)
  for thin in (image, image.transpose(Image.Transpose.ROTATE_90)):
    expected = thin.resize((256 * thin.width // 30, 256 * thin.height // 30), 3)
    x, y = (round((side - 224) / 2) for side in expected.size)
    expected = np.asarray(expected.crop((x, y, x + 224, y + 224)), int)
    crop = np.asarray(transforms.center_crop(thin, 224, Preprocessing()), int)
    assert np.abs(crop - expected).max() <= 2


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
