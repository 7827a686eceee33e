import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from asvit_jax.config import base
from asvit_jax.data import loader, transforms
from asvit_jax.data import rand_augment as lib
from asvit_jax.data.preprocessing import Preprocessing


class Draws:
  """Stands for a generator: gives the numbers it was made of, then 0.9 for good."""

  def __init__(self, *numbers):
    self._numbers = list(numbers)

  def random(self):
    return self._numbers.pop(0) if self._numbers else 0.9


PLUS, MINUS = 0.1, 0.9


def pixels(seed=0, height=20, width=30, low=0, high=256):
  return np.random.default_rng(seed).integers(low, high, (height, width, 3), dtype=np.uint8)


def smooth(height=64, width=64):
  small = Image.fromarray(pixels(height=4, width=4))
  return small.resize((width, height), Image.Resampling.BICUBIC)


def apply(name, image, magnitude, *numbers):
  image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
  return np.asarray(lib.OPERATIONS[name](image, magnitude, Draws(*numbers)))


def assert_equal(result, expected, tolerance=0):
  np.testing.assert_allclose(result.astype(int), np.asarray(expected).astype(int), atol=tolerance)


# Operations


def test_there_are_fifteen_operations():
  assert len(lib.OPERATIONS) == 15
  assert lib.FILL == (124, 116, 104)


@pytest.mark.parametrize("name", lib.OPERATIONS)
@pytest.mark.parametrize("magnitude", [0.0, 0.37, 1.0])
def test_every_operation_keeps_the_kind_of_image(name, magnitude):
  image = smooth(20, 30)
  before = image.tobytes()
  for seed in range(4):
    result = lib.OPERATIONS[name](image, magnitude, np.random.default_rng(seed))
    assert (result.mode, result.size) == ("RGB", (30, 20))
  assert image.tobytes() == before


@pytest.mark.parametrize(
  "name", sorted(lib.OPERATIONS.keys() - {"auto_contrast", "equalize", "invert", "posterize"})
)
def test_no_magnitude_changes_nothing(name):
  assert_equal(apply(name, pixels(), 0.0), pixels())


@pytest.mark.parametrize(
  "name", sorted(lib.OPERATIONS.keys() - {"auto_contrast", "equalize", "invert"})
)
def test_more_magnitude_changes_more(name):
  image = smooth()
  changes = [
    np.abs(apply(name, image, m).astype(int) - np.asarray(image)).mean() for m in (0.3, 0.6, 1.0)
  ]
  assert changes == sorted(changes)
  assert changes[0] < changes[2]


def test_invert():
  assert_equal(apply("invert", pixels(), 0.5), 255 - pixels().astype(int))


def test_auto_contrast_stretches_every_channel_to_the_whole_range():
  image = pixels(low=50, high=120)
  low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
  assert_equal(apply("auto_contrast", image, 0.5), (image - low) * 255 / (high - low), 1)


def test_equalize_makes_the_values_uniform():
  image = pixels(height=64, width=64, low=100, high=132)
  equal = apply("equalize", image, 0.5).astype(int)
  for channel in range(3):
    values = equal[..., channel]
    order = np.argsort(image[..., channel], axis=None)
    assert (np.diff(values.ravel()[order]) >= 0).all()
    share_below = [(values <= value).mean() for value in np.unique(values)]
    np.testing.assert_allclose(np.unique(values) / 255, share_below, atol=0.07)  # 32 values only


@pytest.mark.parametrize(("magnitude", "bits"), [(0, 4), (0.2, 4), (0.25, 3), (0.9, 1), (1, 0)])
def test_posterize_keeps_the_highest_bits(magnitude, bits):
  step = 2 ** (8 - bits)
  assert_equal(apply("posterize", pixels(), magnitude), pixels().astype(int) // step * step)


@pytest.mark.parametrize(("magnitude", "threshold"), [(0.3, 180), (0.9, 26), (1, 0)])
def test_solarize_inverts_from_the_threshold_on(magnitude, threshold):
  image = pixels().astype(int)
  expected = np.where(image >= threshold, 255 - image, image)
  assert_equal(apply("solarize", pixels(), magnitude), expected)


@pytest.mark.parametrize(("magnitude", "added"), [(0.25, 27), (0.9, 99), (1, 110)])
def test_solarize_add_brightens_the_dark_half(magnitude, added):
  image = pixels().astype(int)
  expected = np.where(image < 128, np.minimum(image + added, 255), image)
  assert_equal(apply("solarize_add", pixels(), magnitude), expected)


@pytest.mark.parametrize(
  ("sign", "magnitude", "factor"), [(PLUS, 0.5, 1.45), (PLUS, 1, 1.9), (MINUS, 0.9, 0.19)]
)
def test_enhancements_blend_with_what_lacks_the_quality(sign, magnitude, factor):
  image = pixels().astype(float)
  grey = np.asarray(Image.fromarray(pixels()).convert("L")).astype(float)
  for name, without in (
    ("brightness", 0),
    ("contrast", round(grey.mean())),
    ("color", grey[..., None]),
  ):
    expected = np.clip(without + factor * (image - without), 0, 255)
    assert_equal(apply(name, pixels(), magnitude, sign), expected, 1)


def test_sharpness_blends_with_the_smoothed_image():
  image = pixels().astype(float)
  total = sum(
    image[1 + y : 19 + y, 1 + x : 29 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)
  )  # the kernel: the neighbours once, the pixel itself five times
  smoothed = (total + 4 * image[1:-1, 1:-1]) / 13
  expected = np.clip(smoothed + 1.9 * (image[1:-1, 1:-1] - smoothed), 0, 255)
  assert_equal(apply("sharpness", pixels(), 1, PLUS)[1:-1, 1:-1], expected, 2)


@pytest.mark.parametrize(("sign", "direction"), [(PLUS, 1), (MINUS, -1)])
@pytest.mark.parametrize("name", ["translate_x", "translate_y"])
def test_translate_moves_by_up_to_45_percent_and_fills_with_the_mean(name, sign, direction):
  image, axis = pixels(height=20, width=40), int(name == "translate_x")
  pixel_shift = {0: 6, 1: 12}[axis]
  expected = np.full_like(image, lib.FILL).swapaxes(0, axis)
  source = image.swapaxes(0, axis)
  if direction > 0:
    expected[:-pixel_shift] = source[pixel_shift:]
  else:
    expected[pixel_shift:] = source[:-pixel_shift]
  magnitude = 0.3 / 0.45
  assert_equal(apply(name, image, magnitude, sign), expected.swapaxes(0, axis), 1)
  outside = np.asarray(apply(name, image, 1.0, sign) == lib.FILL).all(axis=-1)
  assert outside.mean() == pytest.approx(0.45)


@pytest.mark.parametrize("sign", [PLUS, MINUS])
@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
def test_shear_moves_rows_by_up_to_three_tenths_of_their_number(name, sign):
  """A ramp, sheared, tells by its values from where they came."""
  axis = int(name == "shear_x")
  place = np.stack(np.mgrid[:100, :100][[axis, axis, axis]], -1).astype(np.uint8)
  sheared = apply(name, place, 1.0, sign)[..., 0].astype(float)
  inside = sheared != lib.FILL[0]
  factor = 0.3 if sign == PLUS else -0.3
  along, across = np.mgrid[:100, :100][[axis, 1 - axis]] + 0.5
  expected = along + factor * across - 0.5
  safe = inside & (expected > 1) & (expected < 98)
  assert safe.mean() > 0.8
  np.testing.assert_allclose(sheared[safe], expected[safe], atol=1.01)
  np.testing.assert_array_equal(inside[(expected > 1) & (expected < 98)], True)


@pytest.mark.parametrize(("sign", "degrees"), [(PLUS, 30), (MINUS, -30)])
def test_rotate_turns_about_the_centre_by_up_to_30_degrees(sign, degrees):
  image = Image.new("RGB", (81, 81))
  image.paste((255, 255, 255), (68, 38, 73, 43))  # 30 to the right of the centre
  turned = apply("rotate", image, 1.0, sign)
  white = (turned > 200).all(axis=-1)
  y, x = np.argwhere(white).mean(0) - 40
  expected = 30 * np.array([-np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])
  np.testing.assert_allclose([y, x], expected, atol=0.7)
  np.testing.assert_array_equal(turned[0, 0], lib.FILL)


def test_signs_are_drawn_evenly_and_interpolation_is_that_of_the_recipe(monkeypatch):
  seen = []
  monkeypatch.setattr(lib, "_affine", lambda image, fill, found: seen.append(found))
  rng, image = np.random.default_rng(0), smooth()
  for _ in range(1000):
    lib.OPERATIONS["shear_x"](image, 0.5, rng)
  assert stats.binomtest(sum(c[1] > 0 for c in seen), 1000).pvalue > 0.01
  assert {abs(c[1]) for c in seen} == {0.15}
  turned = image.rotate(15, resample=Image.Resampling.BICUBIC, fillcolor=lib.FILL)
  assert_equal(apply("rotate", image, 0.5, PLUS), turned)


# Choice


def test_the_generator_determines_the_result():
  image = smooth(height=32, width=32)
  first, again = (
    [lib.rand_augment(image, rng).tobytes() for _ in range(30)]
    for rng in (np.random.default_rng(1), np.random.default_rng(1))
  )
  assert first == again
  assert len(set(first)) > 15


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.485, 0.456, 0.406)])
def test_what_moves_in_is_the_mean_that_the_network_subtracts(mean, monkeypatch):
  moving = {name: lib.OPERATIONS[name] for name in ("rotate", "shear_x", "translate_y")}
  monkeypatch.setattr(lib, "OPERATIONS", moving)
  data = base().data
  data.update({"crop_scale": (1.0, 1.0), "crop_ratio": 1.0, "rand_augment": 9.0})
  view = loader._TrainView(32, Preprocessing(mean=mean, crop_ratio=1.0), data)
  example = {"image": Image.new("RGB", (32, 32), (250, 1, 250)), "label": 0}
  seen = [view(example, np.random.default_rng(seed))["image"] for seed in range(20)]
  filled = [(image == np.rint(255 * np.array(mean))).all(axis=-1).sum() for image in seen]
  assert max(filled) > 32


@pytest.fixture
def calls(monkeypatch):
  """(name, magnitude) of all operations, which do nothing."""
  seen = []

  def spy(name):
    def operation(image, magnitude, rng, fill):
      seen.append((name, 10 * magnitude))
      return image

    return operation

  monkeypatch.setattr(lib, "OPERATIONS", {name: spy(name) for name in lib.OPERATIONS})
  return seen


def test_two_operations_are_drawn_evenly_and_applied_half_the_time(calls):
  rng, image, ends = np.random.default_rng(0), smooth(), [0]
  for _ in range(6000):
    lib.rand_augment(image, rng)
    ends.append(len(calls))
  names = [name for name, _ in calls]
  assert stats.chisquare([names.count(name) for name in lib.OPERATIONS]).pvalue > 0.01
  per_image = np.bincount(np.diff(ends), minlength=3)
  assert stats.chisquare(per_image, 6000 * np.array([0.25, 0.5, 0.25])).pvalue > 0.01
  pairs = [names[a] == names[a + 1] for a, b in itertools.pairwise(ends) if b - a == 2]
  assert stats.binomtest(sum(pairs), len(pairs), 1 / 15).pvalue > 0.01  # with replacement


def test_the_magnitude_is_normal(calls):
  rng, image = np.random.default_rng(0), smooth()
  for _ in range(2000):
    lib.rand_augment(image, rng, magnitude=5, deviation=0.5)
  assert stats.kstest([m for _, m in calls], stats.norm(5, 0.5).cdf).pvalue > 0.01


@pytest.mark.parametrize(("magnitude", "limit"), [(10, 10), (0, 0)])
def test_the_magnitude_stays_in_its_range(calls, magnitude, limit):
  rng = np.random.default_rng(0)
  for _ in range(1000):
    lib.rand_augment(smooth(), rng, magnitude)
  magnitudes = np.array([m for _, m in calls])
  assert (magnitudes >= 0).all()
  assert (magnitudes <= 10).all()
  assert stats.binomtest(int((magnitudes == limit).sum()), len(magnitudes)).pvalue > 0.01


def test_number_of_operations_and_no_deviation(calls):
  rng = np.random.default_rng(0)
  for _ in range(200):
    lib.rand_augment(smooth(), rng, magnitude=7, deviation=0, operations=5)
  assert stats.binomtest(len(calls), 1000).pvalue > 0.01
  np.testing.assert_allclose([m for _, m in calls], 7)


# Colour jitter


def test_color_jitter_of_no_strength_changes_nothing():
  image = smooth()
  assert_equal(np.asarray(transforms.color_jitter(image, 0.0, np.random.default_rng(0))), image)


def test_color_jitter_draws_three_factors_and_their_order(monkeypatch):
  seen = []

  def enhancer(name):
    def of(image):
      return type("E", (), {"enhance": lambda self, f: seen.append((name, f)) or image})()

    return of

  names = ("Brightness", "Contrast", "Color")
  for name in names:
    monkeypatch.setattr(transforms.ImageEnhance, name, enhancer(name))
  rng = np.random.default_rng(0)
  for _ in range(1200):
    transforms.color_jitter(None, 0.4, rng)
  orders = [tuple(name for name, _ in seen[i : i + 3]) for i in range(0, len(seen), 3)]
  assert all(sorted(order) == sorted(names) for order in orders)
  assert stats.chisquare([orders.count(order) for order in set(orders)]).pvalue > 0.01
  assert len(set(orders)) == 6
  for name in names:
    factors = [f for n, f in seen if n == name]
    assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 0.01
