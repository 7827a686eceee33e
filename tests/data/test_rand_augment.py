import numpy as np
import pytest
from PIL import Image
from scipy import stats

from asvit_jax.config import base
from asvit_jax.data import loader, transforms
from asvit_jax.data import rand_augment as lib
from asvit_jax.data.preprocessing import Preprocessing


def smooth(height=20, width=30, seed=0):
  """A picture of a few colours that flow into each other."""
  coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
  return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


class Draws:
  """One stream of random numbers, drawn from as NumPy's generators and Python's `random` are."""

  def __init__(self, seed):
    self._rng = np.random.default_rng(seed)
    self.integers, self.random = self._rng.integers, self._rng.random
    self.normal = self.gauss = self._rng.normal

  def choice(self, choices, size, replace, p):
    assert replace
    assert p is None
    return [choices[i] for i in self.integers(len(choices), size=size)]


@pytest.mark.external
@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m4-n5-mstd3-inc1"])
def test_the_same_draws_give_the_pixels_of_timm(policy, monkeypatch):
  """The first policy is DeiT's; the second reaches all magnitudes, and both ends."""
  timm = pytest.importorskip("timm.data.auto_augment")
  options = {"img_mean": lib.FILL, "interpolation": Image.Resampling.BICUBIC}
  theirs = timm.rand_augment_transform(policy, options)
  ours = {"m9": {}, "m4": {"magnitude": 4, "deviation": 3, "operations": 5}}[policy.split("-")[1]]
  compared = 0
  for seed in range(300):
    image, draws = smooth(seed=seed), Draws(seed)
    with monkeypatch.context() as patched:
      patched.setattr(timm, "random", draws)
      patched.setattr(timm.np.random, "choice", draws.choice)
      try:
        expected = theirs(image)
      except ValueError as error:  # posterize at magnitude 10, which timm hands to PIL
        assert "bits must be between" in str(error)
        continue
    found = lib.rand_augment(image, Draws(seed), **ours)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), str(seed))
    compared += 1
  assert compared > 280


@pytest.mark.parametrize("name", lib.OPERATIONS)
def test_an_operation_keeps_the_kind_of_image_and_leaves_its_argument_alone(name):
  image = smooth()
  before = image.tobytes()
  for seed, magnitude in enumerate((0.0, 0.37, 1.0)):
    result = lib.OPERATIONS[name](image, magnitude, np.random.default_rng(seed))
    assert (result.mode, result.size) == ("RGB", (30, 20))
    if magnitude == 0 and name not in ("auto_contrast", "equalize", "invert", "posterize"):
      assert result.tobytes() == before  # of these, no magnitude changes nothing
  assert image.tobytes() == before


def test_the_generator_determines_the_result():
  first, again = (
    [lib.rand_augment(smooth(), rng).tobytes() for _ in range(30)]
    for rng in (np.random.default_rng(1), np.random.default_rng(1))
  )
  assert first == again
  assert len(set(first)) > 15


def test_half_of_what_is_drawn_is_applied_and_stronger_for_a_greater_magnitude():
  """Of an image that every operation changes, a quarter of 2 operations each leave all as it is."""
  image, changed = smooth(), {}
  for magnitude in (1, 9):
    results = [
      lib.rand_augment(image, np.random.default_rng(seed), magnitude, deviation=0)
      for seed in range(200)
    ]
    changes = [np.abs(np.asarray(r, float) - np.asarray(image)).mean() for r in results]
    changed[magnitude] = np.mean(changes)
    assert stats.binomtest(sum(c == 0 for c in changes), 200, 0.25).pvalue > 0.01
  assert changed[9] > 1.5 * changed[1]


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


def test_color_jitter_draws_a_factor_of_brightness():
  """Contrast and saturation leave a plain grey alone, so its value tells the factor."""
  grey = Image.new("RGB", (1, 1), (100, 100, 100))
  rng = np.random.default_rng(0)
  values = [transforms.color_jitter(grey, 0.4, rng).getpixel((0, 0))[0] for _ in range(1200)]
  assert stats.kstest(np.array(values) + 0.5, stats.uniform(60, 80).cdf).pvalue > 0.01
  assert transforms.color_jitter(smooth(), 0.0, rng).tobytes() == smooth().tobytes()


@pytest.mark.external
def test_color_jitter_is_that_of_torchvision(monkeypatch):
  """With the same order and factors, to the rounding of its two ways to blend."""
  functional = pytest.importorskip("torchvision.transforms.functional")
  adjust = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
  )
  orders = set()
  for seed in range(60):
    rng, expected = np.random.default_rng(seed), smooth()
    order = rng.permutation(3)
    orders.add(tuple(order))
    for i in order:
      expected = adjust[i](expected, rng.uniform(0.6, 1.4))
    found = transforms.color_jitter(smooth(), 0.4, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
  assert len(orders) == 6
