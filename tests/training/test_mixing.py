import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from asvit_jax.data import mixing
from asvit_jax.losses.criteria import smooth_labels

SIZE = (24, 30)
DRAWS = 1000
ALPHAS = (0.8, 0.6)  # of mixup and cutmix


def batch(count=4, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  images = rng.standard_normal((count, *SIZE, 3))
  targets = rng.dirichlet(np.ones(5), count)
  return jnp.asarray(images, dtype), jnp.asarray(targets, jnp.float32)


def weights(mixup, cutmix, switch, count=DRAWS):
  """Of many pairs, the share of the first in its target and its weight in every pixel."""
  images = jnp.stack([jnp.ones((64, 64, 1)), jnp.zeros((64, 64, 1))])
  mix = jax.jit(jax.vmap(lambda key: mixing.mix(key, images, jnp.eye(2), mixup, cutmix, switch)))
  images, targets = mix(jax.random.split(jax.random.key(0), count))
  return np.asarray(targets[:, 0, 0]), np.asarray(images[:, 0, :, :, 0])


@pytest.fixture(scope="module")
def both():
  """Shares and weights with mixup and cutmix on; the latter with a probability of 0.3."""
  return weights(*ALPHAS, 0.3, 2 * DRAWS)


@pytest.fixture
def quarter(monkeypatch):
  """λ is a quarter: its sampler takes seconds to compile."""
  monkeypatch.setattr(jax.random, "beta", lambda *args: jnp.asarray(0.25))


def bounds(mask):
  """(top, bottom, left, right) of a box of True, which must be all of it."""
  y, x = np.nonzero(mask)
  top, bottom, left, right = y.min(), y.max() + 1, x.min(), x.max() + 1
  assert mask.sum() == (bottom - top) * (right - left)
  return top, bottom, left, right


# Mixup and cutmix


def test_nothing_on_returns_the_very_arguments():
  images, targets = batch()
  mixed = mixing.mix(jax.random.key(0), images, targets, 0.0, 0.0, 0.5)
  assert mixed[0] is images
  assert mixed[1] is targets
  program = jax.make_jaxpr(mixing.Mixing())(jax.random.key(0), images, targets)
  assert "random_bits" not in str(program)


def test_mixup_weighs_every_image_with_its_mirror_in_the_batch(quarter):
  images, targets = batch(5)
  mixed, soft = mixing.mix(jax.random.key(1), images, targets, 0.8, 0.0, 0.5)
  np.testing.assert_allclose(mixed, 0.25 * images + 0.75 * images[::-1], atol=1e-6)
  np.testing.assert_allclose(soft, 0.25 * targets + 0.75 * targets[::-1], atol=1e-6)
  np.testing.assert_allclose(mixed[2], images[2], atol=1e-6)  # the middle is its own mirror


def test_cutmix_pastes_one_box_and_weighs_targets_by_its_area(quarter):
  images, targets = batch(4)
  boxes = set()
  mix = jax.jit(mixing.mix, static_argnums=(3, 4, 5))
  for seed in range(20):
    mixed, soft = mix(jax.random.key(seed), images, targets, 0.0, 1.0, 0.5)
    pasted = np.asarray((mixed == images[::-1]).all(axis=-1))
    np.testing.assert_array_equal(np.where(pasted[..., None], images[::-1], images), mixed)
    for mask in pasted[1:]:
      np.testing.assert_array_equal(mask, pasted[0])
    boxes.add(bounds(pasted[0]))
    share = 1 - pasted[0].mean()
    np.testing.assert_allclose(soft, share * targets + (1 - share) * targets[::-1], atol=1e-6)
  assert len(boxes) > 10
  assert max(bottom - top for top, bottom, _, _ in boxes) == 20  # 24 · √0.75, rounded to even
  assert max(right - left for _, _, left, right in boxes) <= 24  # 30 · √0.75


def test_cutmix_centres_are_uniform(monkeypatch):
  monkeypatch.setattr(jax.random, "beta", lambda *args: jnp.asarray(1 - 1 / 64))
  share, kept = weights(0.0, 1.0, 0.5)
  boxes = np.array([bounds(w == 0) for w in kept])
  for low, high in ((0, 1), (2, 3)):
    # A side of 8: 4 on either side of the centre, less where the border is.
    center = np.where(boxes[:, low] > 0, boxes[:, low] + 4, boxes[:, high] - 4)
    assert (center.min(), center.max()) == (0, 63)
    assert stats.chisquare(np.bincount(center, minlength=64)).pvalue > 0.01
    sides = boxes[:, high] - boxes[:, low]
    assert (sides.min(), sides.max()) == (4, 8)
  np.testing.assert_allclose(share, kept.mean(axis=(1, 2)), atol=1e-6)


def is_mixup(kept):
  return ((kept > 0) & (kept < 1)).all(axis=(1, 2))


def test_switch_is_the_probability_of_cutmix(both):
  share, kept = both
  assert stats.binomtest(int((~is_mixup(kept)).sum()), len(kept), 0.3).pvalue > 0.01
  np.testing.assert_allclose(share, kept.mean(axis=(1, 2)), atol=1e-5)
  assert np.isin(kept[~is_mixup(kept)], (0, 1)).all()


def test_mixups_weight_is_beta(both):
  share, kept = both
  np.testing.assert_array_equal(np.ptp(kept[is_mixup(kept)], axis=(1, 2)), 0)
  assert stats.kstest(share[is_mixup(kept)], stats.beta(0.8, 0.8).cdf).pvalue > 0.01


def test_cutmix_boxes_have_the_area_of_the_definition(both):
  """Against draws by NumPy, one box after the other."""
  rng, expected = np.random.default_rng(0), []
  for _ in range(DRAWS):
    half = int(64 * math.sqrt(1 - rng.beta(0.6, 0.6))) // 2
    ends = [(max(c - half, 0), min(c + half, 64)) for c in rng.integers(64, size=2)]
    expected.append(1 - math.prod(high - low for low, high in ends) / 64**2)
  share, kept = both
  assert stats.ks_2samp(share[~is_mixup(kept)], expected).pvalue > 0.01
  assert all(bounds(w == 0) for w in kept[~is_mixup(kept)] if (w == 0).any())


# DeiT's: one draw for all images of a device


def timms(images, targets, weight, box=None):
  """timm's `Mixup` in batch mode by NumPy: a λ, or for cutmix a box (top, bottom, left, right)."""
  mixed, mirrored = np.array(images), np.array(images)[::-1]
  if box is None:
    mixed = weight * mixed + (1 - weight) * mirrored
  else:
    top, bottom, left, right = box
    mixed[:, top:bottom, left:right] = mirrored[:, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / math.prod(images.shape[1:3])
  return mixed, weight * targets + (1 - weight) * targets[::-1]


def test_deits_mixing_is_timms_in_batch_mode(monkeypatch):
  # The sampler of λ takes seconds to compile; any other that depends on the key will do.
  monkeypatch.setattr(jax.random, "beta", lambda key, *rest: jax.random.uniform(key))
  mixing_of_deit = mixing.Mixing(mixup=0.8, cutmix=1.0, switch=0.5, mode="batch")
  mix = jax.jit(jax.vmap(mixing_of_deit, in_axes=(0, None, None, None)))
  images, labels = batch(5)[0], np.array([0, 3, 1, 1, 4])
  smooth = np.full((5, 5), 0.1 / 5, np.float32)
  smooth[np.arange(5), labels] += 0.9
  targets = smooth_labels(jnp.asarray(labels), 5, 0.1)
  np.testing.assert_allclose(targets, smooth, atol=1e-7)

  keys, cut = jax.random.split(jax.random.key(0), 40), 0
  for mixed, soft in zip(*mix(keys, images, targets, 0), strict=True):
    share = (soft[0, 0] - smooth[4, 0]) / (smooth[0, 0] - smooth[4, 0])
    pasted = np.asarray(mixed[0] == images[4]).all(axis=-1)
    stayed = np.asarray(mixed[0] == images[0]).all(axis=-1)
    box = None
    if (pasted | stayed).all():
      cut += 1
      box = bounds(pasted) if pasted.any() else (0, 0, 0, 0)
    expected = timms(np.asarray(images), smooth, float(share), box)
    np.testing.assert_allclose(mixed, expected[0], atol=2e-5)
    np.testing.assert_allclose(soft, expected[1], atol=2e-6)
  assert 8 < cut < 32

  first, other = (np.asarray(mix(keys, images, targets, first)[1]) for first in (0, 5))
  assert (first != other).any(axis=(1, 2)).mean() > 0.9  # another device draws for itself


# Erasing


erase = jax.jit(mixing.erase, static_argnums=2)


@functools.cache
def erased(probability, size=(40, 40), count=DRAWS):
  """Which pixels of zeros became noise, (n, h, w) bool, and the images."""
  images = np.asarray(erase(jax.random.key(0), jnp.zeros((count, *size, 2)), probability))
  return (images != 0).any(axis=-1), images


def rectangles(height, width, count=DRAWS):
  """(n, 4) top, bottom, left, right by NumPy, one draw after the other; zeros for none."""
  rng = np.random.default_rng(0)

  def rectangle():
    for _ in range(10):
      area = height * width * rng.uniform(0.02, 1 / 3)
      aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
      h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
      if h < height and w < width:
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        return top, top + h, left, left + w
    return 0, 0, 0, 0

  return np.array([rectangle() for _ in range(count)])


def test_erasing_off_returns_the_very_images():
  images, _ = batch()
  assert mixing.erase(jax.random.key(0), images, 0.0) is images


def test_erasing_frequency_is_the_probability():
  mask, _ = erased(0.25, (16, 16))
  assert stats.binomtest(int(mask.any(axis=(1, 2)).sum()), DRAWS, 0.25).pvalue > 0.01


def test_erased_rectangles_have_the_area_aspect_and_place_of_the_definition():
  mask, _ = erased(1.0)
  assert mask.any(axis=(1, 2)).all()
  boxes = np.array([bounds(m) for m in mask])

  def measures(boxes):
    top, bottom, left, right = boxes.T
    h, w = bottom - top, right - left
    return h * w, h / w, h, w, top, left, top / (40 - h), left / (40 - w)

  for ours, theirs in zip(measures(boxes), measures(rectangles(40, 40)), strict=True):
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01
  area, aspect, *_, top, left = measures(boxes)
  assert 0.015 < area.min() / 40**2 < 0.04
  assert 0.31 < area.max() / 40**2 < 0.345
  assert 0.25 < aspect.min() < 0.36
  assert (top.min(), top.max(), left.min(), left.max()) == (0, 1, 0, 1)
  # An area below 0.29 fits with every aspect: its distribution is the formula's own.
  small = area[area < 0.28 * 40**2] / 40**2
  assert stats.kstest(small, stats.uniform(0.02, 0.26).cdf).pvalue > 0.01


def test_erased_pixels_are_standard_normal_and_the_others_stay():
  mask, filled = erased(1.0)
  noise = filled[mask]
  assert stats.kstest(noise.ravel(), stats.norm.cdf, method="asymp").pvalue > 0.01
  assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.01
  images, _ = batch(8)
  result = np.asarray(erase(jax.random.key(3), images, 1.0))
  changed = (result != np.asarray(images)).any(axis=-1)
  assert [bounds(m) for m in changed]
  np.testing.assert_array_equal(result[~changed], np.asarray(images)[~changed])


def test_a_rectangle_that_does_not_fit_is_drawn_again_or_given_up():
  mask, _ = erased(1.0, (8, 200))
  found = mask.any(axis=(1, 2))
  heights = [bounds(m)[1] - bounds(m)[0] for m in mask[found]]
  assert max(heights) == 7
  expected = rectangles(8, 200)
  rate = (expected[:, 1] > 0).mean()
  assert 0.2 < rate < 0.8
  assert stats.binomtest(int(found.sum()), DRAWS, rate).pvalue > 0.005
  expected = expected[expected[:, 1] > 0]
  assert stats.ks_2samp(heights, expected[:, 1] - expected[:, 0]).pvalue > 0.01


# Both


def test_bfloat16_stays_bfloat16_and_the_key_determines_it(quarter):
  augment = jax.jit(mixing.Mixing(mixup=0.8, cutmix=1.0, switch=0.5, erasing=0.5))
  images, targets = batch(6, jnp.bfloat16)
  first, again, other = (augment(jax.random.key(seed), images, targets)[0] for seed in (0, 0, 1))
  assert (first == again).all()
  assert (first != other).any()
  mixed, soft = augment(jax.random.key(2), images, targets)
  assert (mixed.shape, mixed.dtype) == (images.shape, jnp.bfloat16)
  assert (soft.shape, soft.dtype) == (targets.shape, jnp.float32)
  assert np.isfinite(np.asarray(mixed, np.float32)).all()
  np.testing.assert_allclose(soft.sum(axis=-1), 1, atol=1e-5)


def test_erasing_comes_before_mixing(quarter):
  """Under mixup the erased rectangle of an image shows in its mirror too."""
  images, targets = jnp.zeros((2, 32, 32, 3)), jnp.eye(2)
  augment = jax.jit(mixing.Mixing(mixup=1.0, erasing=1.0))
  first, second = augment(jax.random.key(0), images, targets)[0]
  np.testing.assert_array_equal(first != 0, second != 0)
  assert (first != second).any()
