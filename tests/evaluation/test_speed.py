import numpy as np
import pytest
import tiny
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data.images import load_image
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.evaluation import speed

ARCH = tiny.TRAINED


@pytest.fixture(scope="module")
def pixels():
  return np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(pixels):
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), tiny.normalize(pixels), (0.7, 0.5, 0.3))
  return tiny.network(ARCH).with_params(params)


@pytest.mark.slow
def test_of_all_images_those_are_timed_whose_costs_are_quantiles(network, pixels):
  kept = np.asarray(network(pixels, "masked").kept)
  ordered = np.argsort(network.gmacs(kept), kind="stable")
  assert len(set(network.gmacs(kept))) > 5
  images, counts = speed.representative(network, pixels, 1)
  assert network.gmacs(counts)[0] == network.gmacs(kept)[ordered[4]]  # the median
  np.testing.assert_array_equal(counts, network(images, "masked").kept)
  images, counts = speed.representative(network, pixels, 3)
  np.testing.assert_array_equal(
    np.sort(network.gmacs(counts)), network.gmacs(kept)[ordered[[1, 4, 7]]]
  )
  images, counts = speed.representative(network, pixels, 9)
  np.testing.assert_array_equal(images, pixels)
  np.testing.assert_array_equal(counts, kept)


def test_photographs_are_evenly_spaced_files_as_the_network_sees_them(network, pixels, tmp_path):
  (tmp_path / "below").mkdir()
  paths = [tmp_path / "below" / f"{i}.png" for i in range(5)]
  for path, image in zip(paths, pixels, strict=False):
    Image.fromarray(image).save(path)
  own = Preprocessing(crop_ratio=0.7, interpolation="nearest")
  network = tiny.network(ARCH, preprocessing=own)
  for count, chosen in ((3, [0, 2, 4]), (5, range(5)), (9, [0, 0, 1, 2, 2, 2, 3, 4, 4])):
    expected = [load_image(paths[i], 16, own) for i in chosen]
    np.testing.assert_array_equal(speed.photographs(tmp_path, count, network), expected)
  (tmp_path / "none").mkdir()
  with pytest.raises(InputError, match=r"none: no image files found"):
    speed.photographs(tmp_path / "none", 3, network)


def test_noise_spreads_what_is_kept_of_it_as_photographs_do(network):
  images = speed.synthetic_images(network, 16, 0.6)
  assert (images.shape, images.dtype) == ((16, 16, 16, 3), np.uint8)
  scores = np.asarray(network(images, "masked").scores[:, 0])
  kept = (scores > np.quantile(scores, 0.4)).sum(axis=1)
  assert kept.mean() / 16 == pytest.approx(0.6, abs=0.05)
  assert 0 < kept.std() < 0.5 * kept.mean()


def test_dense_is_timed_in_turn_with_what_is_asked_for(network, pixels):
  images, kept = speed.representative(network, pixels, 4)
  results = speed.run(network, images, kept, ["top_k", "masked"], rounds=2)
  assert list(results) == ["dense", "masked", "top_k"]
  for result in results.values():
    assert result["images_per_s"] == pytest.approx(4e3 / result["ms"])
  assert results["dense"]["speedup"] == 1
  assert results["dense"]["gmacs"] == results["masked"]["gmacs"] == network.dense_gmacs
  pruned = float(network.gmacs(kept).mean())
  assert results["top_k"]["gmacs"] == pytest.approx(pruned, rel=0.1)  # of sixteen patches


@pytest.mark.slow
def test_fixed_is_timed_at_the_counts_of_the_network_or_else_the_mean(network, pixels):
  images, kept = speed.representative(network, pixels, 4)
  own = network.with_counts((9, 5, 2))
  found = speed.run(own, images, kept, ["fixed"], rounds=1)
  assert list(found) == ["dense", "fixed"]
  assert found["fixed"]["gmacs"] == pytest.approx(float(network.gmacs([9, 5, 2])))
  unknown = network.with_counts(())
  found = speed.run(unknown, images, kept, ["fixed", "batch_mean"], rounds=1)
  assert found["fixed"]["gmacs"] == found["batch_mean"]["gmacs"]
