import numpy as np
import pytest

from asvit_jax.evaluation import divergence


def test_means_and_their_standard_errors():
  found = divergence.summarize([0.0, 0.1, 0.2, 0.5], [True, True, False, True])
  assert found["kl"] == pytest.approx(0.2)
  assert found["kl_error"] == pytest.approx(np.std([0, 0.1, 0.2, 0.5], ddof=1) / 2)
  assert found["agreement"] == 75
  assert found["agreement_error"] == pytest.approx(100 * np.std([1, 1, 0, 1], ddof=1) / 2)
  assert divergence.summarize([0.3], [True])["kl_error"] is None  # of one image nothing is known


def test_an_interval_covers_the_true_difference_as_often_as_it_says():
  rng, covered = np.random.default_rng(0), 0
  for trial in range(100):
    hard = rng.exponential(size=60)  # of each image, for both methods
    ours, others = (hard + 0.2 * rng.standard_normal(60) + shift for shift in (0.05, 0.0))
    mean, low, high = divergence.paired_interval(ours, others, seed=trial)
    assert low <= mean <= high
    covered += low <= 0.05 <= high
  assert 88 <= covered <= 99


def test_pairing_tells_apart_what_the_images_spread_would_hide():
  rng = np.random.default_rng(1)
  hard = rng.exponential(size=300)
  mean, low, high = divergence.paired_interval(hard + 0.02, hard)
  assert (mean, low, high) == pytest.approx((0.02, 0.02, 0.02))
  assert divergence.standard_error(hard) > 0.02
  assert divergence.paired_interval(hard, hard) == (0, 0, 0)
