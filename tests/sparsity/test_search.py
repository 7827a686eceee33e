import dataclasses

import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import search
from asvit_jax.sparsity.calibration import Calibrator

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3), reduction="merge", score="attention_novelty")
COUNT = 48


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(4).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def calibrator(images):
  return tiny.network(ARCH).calibrator(images)


def divergence(network, images):
  """KL(dense ‖ pruned) from the executions, in NumPy."""

  def log_probabilities(execution):
    logits = np.asarray(network(images, execution).logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

  dense, pruned = log_probabilities("dense"), log_probabilities("masked")
  return (np.exp(dense) * (dense - pruned)).sum(axis=-1).mean()


@pytest.mark.slow
def test_what_it_finds_is_nearer_to_the_dense_network_than_where_it_began(images):
  network, found = tiny.network(ARCH).search(images, 0.5, trials=12)
  assert found.divergence < found.divergence_before
  assert network.arch.stage_weights == found.stage_weights
  assert (found.trials, found.seed, found.images) == (12, 0, COUNT)
  before = tiny.network(ARCH).calibrate(images, 0.5)
  after = network.calibrate(images, 0.5)
  # It aims at the budget to a thousandth, and a calibration has its own last digit.
  assert divergence(before, images) == pytest.approx(found.divergence_before, rel=0.03)
  assert divergence(after, images) == pytest.approx(found.divergence, rel=0.03)


def test_the_same_seed_finds_the_same_and_another_something_else(calibrator):
  first, again, other = (search.search(calibrator, 0.6, trials=5, seed=s) for s in (1, 1, 2))
  assert first == again
  assert first.stage_weights != other.stage_weights


def test_without_trials_it_ends_where_it_began(calibrator):
  found = search.search(calibrator, 0.6, trials=0)
  assert found.stage_weights == (1, 1, 1)
  assert found.divergence == found.divergence_before


def test_it_begins_with_the_weights_of_the_network(images):
  arch = dataclasses.replace(ARCH, stage_weights=(1.0, 2.0, 0.5))
  found = search.search(tiny.network(arch).calibrator(images), 0.6, trials=0)
  assert found.stage_weights == (1.0, 2.0, 0.5)


def test_a_trial_predicts_what_masked_execution_predicts(calibrator, images):
  trial = calibrator.trial(0.7, logits=True)
  network = tiny.network(ARCH).with_thresholds(trial.thresholds)
  outputs = network(images, "masked")
  np.testing.assert_allclose(trial.logits, outputs.logits, atol=2e-5)
  assert trial.gmacs == pytest.approx(network.gmacs(np.asarray(outputs.kept)).mean(), rel=1e-6)
  np.testing.assert_allclose(calibrator.dense_logits(), network(images, "dense").logits, atol=2e-5)


def test_a_budget_that_cannot_be_met_is_refused(calibrator):
  with pytest.raises(InputError, match=r"budget 0\.01 cannot be met"):
    search.search(calibrator, 0.01)


@pytest.mark.parametrize("value", [-1, 0.5, True, pytest.param(-(10**5000), id="long")])
def test_trials_and_seeds_are_whole_numbers(value):
  search.check_arguments(10**5000, 10**5000)
  for name, given in (("trials", (value, 0)), ("seed", (0, value))):
    with pytest.raises(InputError, match=rf"{name} .* of the search: expected a whole number"):
      search.check_arguments(*given)


def test_padding_is_not_searched_on(images):
  padded = np.concatenate([images, np.zeros_like(images[:16])])
  batches = [{"image": padded, "valid": np.arange(COUNT + 16) < COUNT}]
  calibrator = Calibrator(tiny.network(ARCH), batches)
  assert len(calibrator.dense_logits()) == COUNT
