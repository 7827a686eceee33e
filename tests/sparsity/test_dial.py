import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.network.network import _compiled
from asvit_jax.sparsity import complexity, schedule

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3))
BUDGETS = (0.7, 0.5, 0.9)


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(4).integers(0, 256, (96, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def dialled(images):
  return tiny.network(ARCH).calibrate(images, BUDGETS)


def share(network, images):
  return network.gmacs(np.asarray(network(images, "masked").kept)).mean() / network.dense_gmacs


def test_thresholds_between_two_budgets_are_interpolated_whatever_their_order():
  # Geometrically, or as they are in the stage that has one of zero.
  table = jnp.array([[2.0, 20.0], [1.0, 10.0], [8.0, 0.0]])
  for budget, expected in ((0.5, [1, 10]), (0.6, [2**0.5, 15]), (0.7, [2, 20]), (0.8, [4, 10])):
    np.testing.assert_allclose(schedule.thresholds_at(table, BUDGETS, budget), expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("lowest", "gradient"),
  [(1.0, [3**0.75 / 4, 3**0.75 / 4, 0]), (-1.0, [0.25, 0.75, 0])],
)
def test_gradients_reach_the_rows_of_the_two_nearest_budgets(lowest, gradient):
  table = jnp.array([lowest, 3.0, 5.0])[:, None]
  ours = jax.grad(lambda t: schedule.thresholds_at(t, BUDGETS, jnp.float32(0.55))[0])(table)
  np.testing.assert_allclose(ours[:, 0], gradient, atol=1e-5)


def test_every_row_is_what_a_calibration_for_its_budget_alone_gives(dialled, images):
  for row, budget in zip(dialled.params["thresholds"], BUDGETS, strict=True):
    alone = tiny.network(ARCH).calibrate(images, budget)
    np.testing.assert_array_equal(alone.params["thresholds"], row)
    np.testing.assert_allclose(dialled.at(budget).params["thresholds"], row, rtol=1e-6)
    assert share(dialled.at(budget), images) == pytest.approx(budget, rel=3e-3)


def test_between_budgets_it_costs_what_lies_between(images):
  apart = np.arange(0.5, 0.95, schedule.SPACING).round(2)
  network = tiny.network(ARCH).calibrate(images, apart)
  between = apart[:-1] + schedule.SPACING / 2
  shares = [share(network.at(budget), images) for budget in between]
  np.testing.assert_allclose(shares, between, atol=0.02)
  assert (apart[:-1] < shares).all()
  assert (shares < apart[1:]).all()


def test_where_none_is_asked_for_it_runs_at_its_first_budget(dialled, images):
  ours, first = dialled(images[:4]), dialled.at(0.7)(images[:4])
  np.testing.assert_array_equal(ours.keep, first.keep)
  # Two programs, as one picks its thresholds; they round in different places.
  np.testing.assert_allclose(ours.logits, first.logits, atol=1e-6)


def test_another_budget_compiles_nothing(dialled, images):
  run = jax.jit(lambda network, images: network.apply(images, "masked").logits)
  for budget in (0.5, 0.62, 0.9):
    # Budgets have counts of their own, which are static, and which fixed execution alone reads.
    run(dialled.at(budget).for_execution("masked"), images[:4])
  assert run._cache_size() == 1
  before = _compiled._cache_size()
  for budget in (0.5, 0.62, 0.9):
    assert dialled.at(budget).counts
    dialled.at(budget)(images[:4], "masked")
  assert _compiled._cache_size() == before + 1


def test_what_cannot_be_is_refused(dialled, images):
  for budget in (0.45, 0.95):
    with pytest.raises(
      InputError, match=rf"budget {budget:g}: the thresholds are for 0\.5 to 0\.9"
    ):
      dialled.at(budget)
  with pytest.raises(InputError, match=r"budget 0\.6: .*only where it was calibrated for several"):
    dialled.at(0.7).at(0.6)
  with pytest.raises(InputError, match=r"budget 0\.6: the network is dense.*--calibrate"):
    dialled.dense.at(0.6)
  with pytest.raises(InputError, match=r"budget 65 is not in \(0, 1\].*did you mean 0\.65\?"):
    dialled.at(65)
  with pytest.raises(InputError, match="different ones"):
    tiny.network(ARCH).calibrate(images, (0.5, 0.5))
  with pytest.raises(InputError, match=r"budget 1\.2 is not in"):
    tiny.network(ARCH).calibrate(images, (0.5, 1.2))


@pytest.mark.parametrize("in_header", [False, True])
def test_a_file_keeps_the_thresholds_of_all_budgets(dialled, images, tmp_path, in_header):
  path = tmp_path / "dial.safetensors"
  dialled.save(path, thresholds_as_metadata=in_header)
  loaded = load(path)
  assert loaded.budgets == BUDGETS
  jax.tree.map(np.testing.assert_array_equal, loaded.params, dialled.params)
  np.testing.assert_array_equal(
    loaded.at(0.6)(images[:2]).logits, dialled.at(0.6)(images[:2]).logits
  )


def test_the_dense_network_of_it_is_one_without_budgets(dialled):
  assert dialled.dense.budgets == ()
  assert not dialled.dense.prunes
  assert dataclasses.replace(dialled.dense, params={}) == tiny.network(ARCH).dense.with_params({})


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_range_is_calibrated_at_budgets_near_each_other(budget):
  spread = schedule.budgets_of_range(0.4, 0.95, budget)
  assert spread[0] == budget
  assert (min(spread), max(spread)) == (0.4, 0.95)
  assert np.diff(sorted(spread)).max() <= schedule.SPACING + 1e-6
  assert len(set(spread)) == len(spread)
  complexity.check_budgets(ARCH, spread)
