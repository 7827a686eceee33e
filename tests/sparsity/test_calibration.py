import dataclasses

import jax
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import complexity, schedule

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3))
COUNT = 120


@pytest.fixture(scope="module")
def batches():
  """120 images in two batches of 64; the last rows are padding."""
  images = np.random.default_rng(4).integers(0, 256, (128, 32, 32, 3), dtype=np.uint8)
  valid = np.arange(128) < COUNT
  return [{"image": images[i : i + 64], "valid": valid[i : i + 64]} for i in (0, 64)]


def measure(params, batches):
  """(images, stages) kept tokens, one by one image of the data."""
  kept = [
    np.asarray(tiny.run_masked(ARCH, params, tiny.normalize(batch["image"])).kept)
    for batch in batches
  ]
  return np.concatenate(kept)[np.concatenate([batch["valid"] for batch in batches])]


@pytest.mark.parametrize("budget", [0.9, 0.5])
def test_measured_gmacs_meet_the_budget_with_a_geometric_schedule(batches, budget):
  params = tiny.network(ARCH).calibrate(batches, budget).params
  kept = measure(params, batches)
  share = complexity.gmacs(ARCH, kept).mean() / complexity.dense_gmacs(ARCH)
  assert abs(share - budget) < 2e-3 * budget
  assert kept.std(axis=0).min() > 0.2  # images differ in what they keep

  ratios = kept.mean(axis=0) / ARCH.patches
  r = ratios[0]
  np.testing.assert_allclose(ratios, [r, r**2, r**3], atol=2e-3)


def test_only_thresholds_change_and_those_of_before_are_not_read(batches):
  params = tiny.params(ARCH)
  before = jax.tree.map(np.array, params)
  ours = tiny.network(ARCH).calibrate(batches, 0.65).params
  assert np.abs(ours["thresholds"] - before["thresholds"]).min() > 0
  jax.tree.map(np.testing.assert_array_equal, params, before)  # the argument is left alone
  same = ours | {"thresholds": before["thresholds"]}
  jax.tree.map(np.testing.assert_array_equal, same, before)
  from_dense = tiny.network(ARCH).dense.calibrate(batches, 0.65).params
  np.testing.assert_array_equal(from_dense["thresholds"], ours["thresholds"])


def test_padding_is_not_calibrated_on(batches):
  network = tiny.network(ARCH)
  ours = network.calibrate(batches, 0.65).params
  other = [b | {"image": np.where(b["valid"][:, None, None, None], b["image"], 0)} for b in batches]
  again = network.calibrate(other, 0.65).params
  np.testing.assert_allclose(again["thresholds"], ours["thresholds"], rtol=1e-5)


def test_at_the_least_budget_no_patch_is_left(batches):
  least = complexity.gmacs(ARCH, np.zeros(3, np.float32)) / complexity.dense_gmacs(ARCH)
  params = tiny.network(ARCH).calibrate(batches, float(least) + 1e-6).params
  assert np.isfinite(np.asarray(params["thresholds"])).all()
  assert measure(params, batches).mean() < 0.02


@pytest.mark.parametrize(("budget", "message"), [(1.3, "not in"), (0.01, "cannot be met")])
def test_an_impossible_budget_is_refused(batches, budget, message):
  with pytest.raises(InputError, match=f"budget {budget:g} .*{message}"):
    tiny.network(ARCH).calibrate(batches, budget)


COST = {"reduction": "merge_tokens", "score": "merge_cost", "score_exponents": (0.5, 1, 0.5, 0.5)}


@pytest.mark.parametrize("multiple", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_rounded_counts_meet_the_budget_as_the_network_keeps_them(multiple):
  arch = tiny.arch(prune_inside=True, count_multiple=multiple, **COST)
  images = np.random.default_rng(4).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
  network = tiny.network(arch).dense.calibrate(images, 0.7)
  kept = network(images, "masked").kept
  share = float(np.mean(network.gmacs(kept)) / network.dense_gmacs)
  assert abs(share - 0.7) < 0.02
  whole = arch.prefix_tokens + arch.patches
  tokens = arch.prefix_tokens + np.asarray(kept)
  assert ((tokens % multiple == 0) | (tokens == whole)).all()


def test_the_weights_of_stages_follow_the_budget_where_the_network_says_none():
  arch = tiny.arch(**COST)
  slopes = [
    np.ptp(np.log(schedule.with_stage_weights(arch, b).stage_weights))
    for b in (0.3, 0.4, 0.57, 0.7, 0.9)
  ]
  assert slopes[0] < 0.01
  assert (np.diff(slopes) > 0).all()
  own = dataclasses.replace(arch, stage_weights=(1.0, 2.0, 3.0))
  assert schedule.with_stage_weights(own, 0.5) == own
  paper = tiny.arch()
  assert schedule.with_stage_weights(paper, 0.5) == paper
