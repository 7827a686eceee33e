"""What is found for a time, on a device whose times are known."""

import dataclasses
import itertools

import jax
import numpy as np
import paced
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.network import Network
from asvit_jax.pacing import prediction, reaching, solving
from asvit_jax.sparsity import schedule
from asvit_jax.sparsity.complexity import dense_gmacs, gmacs
from asvit_jax.sparsity.executions import grouped, packed
from asvit_jax.sparsity.executions.fixed_count import fixed_count

ARCH = tiny.arch()
BATCH = 8
COST = {
  "reduction": "merge_tokens",
  "score": "merge_cost",
  "prune_inside": True,
  "score_exponents": (0.5, 1.0, 0.5, 0.25),
}


@pytest.fixture(autouse=True)
def steps(monkeypatch):
  monkeypatch.setattr(packed, "STEP", 3)
  monkeypatch.setattr(grouped, "FEW", 0)


@pytest.fixture(scope="module")
def pixels():
  return np.random.default_rng(4).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
  return tiny.network(ARCH).dense


@pytest.fixture(scope="module")
def calibrator(network, pixels):
  return network.calibrator([{"image": pixels[i : i + 4]} for i in range(0, 48, 4)])


def fixed_logits(network, pixels, counts):
  """Logits where every image keeps so many patches."""
  model = network.with_thresholds(np.zeros(network.arch.stages)).model
  run = jax.jit(lambda images: fixed_count(model, images, counts).logits)
  return run(network.preprocessing.normalize(pixels))


def kl_of(network, pixels, counts):
  """KL(dense ‖ pruned) where every image keeps the same."""
  ours = fixed_logits(network, pixels, tuple(counts))
  p, q = (jax.nn.log_softmax(x) for x in (network(pixels).logits, ours))
  return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes", [{}, {"prune_inside": True}, {"reduction": "merge"}, COST, {"count_multiple": 4}]
)
def test_trials_of_equal_counts_are_the_fixed_execution(pixels, changes):
  network = tiny.network(tiny.arch(depth=5, **changes)).dense
  trial = network.calibrator(pixels).fixed_trial((11, 6, 2), logits=True)
  assert trial.kept.tolist() == [[11, 6, 2]] * len(pixels)
  assert trial.gmacs == pytest.approx(float(network.gmacs(np.array([11, 6, 2]))))
  expected = fixed_logits(network, pixels, (11, 6, 2))
  np.testing.assert_allclose(trial.logits, expected, atol=3e-5)


def test_some_of_the_images_are_calibrated_on_as_they_are(network, pixels, calibrator):
  fewer = calibrator.subset(10)
  assert 0 < fewer.images <= 10
  ours, whole = fewer.trial(0.7), calibrator.trial(0.7)
  assert whole.kept.shape == (48, 3)
  assert ours.kept.shape == (fewer.images, 3)
  masked = network.with_thresholds(whole.thresholds)(pixels, "masked")
  np.testing.assert_array_equal(whole.kept, masked.kept)
  assert calibrator.subset(1000).trial(0.7).gmacs == whole.gmacs


@pytest.mark.parametrize("speedup", [1.1, 1.3, 1.6])
def test_the_largest_equal_counts_that_are_fast_enough_are_found(calibrator, speedup):
  table = paced.table(ARCH, BATCH)
  solver, target = solving.Solver(table, calibrator), table.dense / speedup
  for s in (-0.7, 0, 1.4):
    weights = solving.tilted(ARCH, s)
    found = solver.solved("fixed", weights, target)
    assert found.predicted == prediction.fixed_ms(table, ARCH, found.counts) <= target
    exponents = np.cumsum(weights)
    # All that this schedule can keep, from a grid of ratios: none is between ours and the target.
    grid = {tuple(np.round(16 * r**exponents).astype(int)) for r in np.linspace(0, 1, 20_001)}
    allowed = [prediction.fixed_ms(table, ARCH, counts) for counts in grid]
    assert max(ms for ms in allowed if ms <= target) == pytest.approx(found.predicted)


def test_trials_where_nothing_is_kept_run(calibrator):
  trial = calibrator.trial(0.0, logits=True)
  assert trial.kept.max() == 0
  none = calibrator.fixed_trial((0, 0, 0), logits=True).logits
  np.testing.assert_allclose(trial.logits, none, atol=3e-5)


def test_the_fastest_that_is_predicted_is_found(calibrator):
  table = paced.table(ARCH, BATCH)
  speedup = solving.fastest(table, ARCH) - 1e-6
  found = solving.Solver(table, calibrator).best(table.dense / speedup)
  assert max(found.counts) == 0


@pytest.mark.parametrize("speedup", [1.2, 1.6])
def test_packed_is_solved_by_what_images_keep(calibrator, speedup):
  table = paced.table(ARCH, BATCH)
  solver, target = solving.Solver(table, calibrator), table.dense / speedup
  found = solver.solved("packed", (1.0,) * 3, target)
  kept = calibrator.trial(found.ratio).kept
  assert found.predicted == pytest.approx(prediction.packed_ms(table, ARCH, kept))
  assert found.predicted == pytest.approx(target, rel=0.03)
  assert kept.std(axis=0).max() > 0


def test_the_way_that_changes_predictions_least_wins(network, pixels, calibrator):
  table = paced.table(ARCH, BATCH)
  solver, target = solving.Solver(table, calibrator), table.dense / 1.5
  best = solver.best(target)
  assert best.predicted <= 1.02 * target
  own = [solver.solved(execution, (1.0,) * 3, target) for execution in ("fixed", "packed")]
  assert best.divergence <= min(candidate.divergence for candidate in own)
  for candidate in [c for c in (*own, best) if c.execution == "fixed"]:
    kl = kl_of(network, pixels, candidate.counts)
    assert candidate.divergence == pytest.approx(kl, rel=1e-3)
  assert solving.Solver(table, calibrator).best(target) == best  # the same again


def test_tilts_lean_to_either_end():
  assert solving.tilted(ARCH, 0) == (1.0, 1.0, 1.0)
  arch = dataclasses.replace(ARCH, stage_weights=(1.0, 2.0, 0.5))
  assert solving.tilted(arch, 0) == (1.0, 2.0, 0.5)
  for low, high in itertools.pairwise(solving.tilted(ARCH, s) for s in (-0.7, 0, 0.7)):
    assert low[0] > high[0]
    assert low[2] < high[2]


def test_schedules_begin_with_that_of_the_budget_that_the_time_leads_to(pixels, monkeypatch):
  arch = tiny.arch(depth=5, **COST)
  table, calibrator = paced.table(arch, BATCH), tiny.network(arch).dense.calibrator(pixels)
  solver, scheduled = solving.Solver(table, calibrator), []
  for speedup in (1.2, 1.9):
    target = table.dense / speedup
    weights = solver.scheduled(target).stage_weights
    found = solver.solved("fixed", weights, target)
    share = float(gmacs(arch, np.array(found.counts, np.float32))) / dense_gmacs(arch)
    expected = schedule.with_stage_weights(arch, share).stage_weights
    np.testing.assert_allclose(weights, expected, rtol=0.1)
    scheduled.append(weights)
  assert scheduled[0][0] < scheduled[1][0]  # the less is to go, the more of it late
  own = dataclasses.replace(arch, stage_weights=(1.0, 2.0, 0.5))
  solver = solving.Solver(table, tiny.network(own).dense.calibrator(pixels))
  assert solver.scheduled(target) == own
  # What was found sets the weights, which then win over the schedule.
  paced.install(monkeypatch)
  monkeypatch.setattr(solving, "TILTS", 0)
  monkeypatch.setattr(solving, "_HOPELESS", 0.0)
  (found,) = reaching.reach(tiny.network(arch), pixels, (1.9,), BATCH)
  assert found.weights == scheduled[1]


def test_packed_is_tried_beside_the_best_schedule_of_fixed_only(calibrator, monkeypatch):
  table = paced.table(ARCH, BATCH)
  solver, tried = solving.Solver(table, calibrator), {"fixed": [], "packed": []}
  solved = solver.solved

  def noted(execution, weights, target):
    tried[execution].append(candidate := solved(execution, weights, target))
    return candidate

  monkeypatch.setattr(solver, "solved", noted)
  solver.best(table.dense / 1.5)
  best = min(tried["fixed"], key=lambda candidate: candidate.divergence)
  assert 1 <= len(tried["packed"]) <= 3
  assert tried["packed"][0].weights == best.weights


def test_packed_programs_of_calls_have_the_widths_that_the_counts_say(monkeypatch):
  means, choose = [], packed.choose_widths

  def noted(top, step, mean):
    means.append(mean)
    return choose(top, step, mean)

  monkeypatch.setattr(packed, "choose_widths", noted)
  network = tiny.network(ARCH).with_counts((11, 6, 2))
  network(np.zeros((3, 32, 32, 3), np.uint8), "packed")
  assert set(means) == {12, 7, 3}  # with the class token


@pytest.mark.parametrize("slower", [0.9, 1.0, 1.12])
def test_the_aim_is_corrected_by_what_is_measured(network, pixels, slower, monkeypatch):
  monkeypatch.setattr(reaching, "TOLERANCE", 0.06)  # 16 patches cannot meet a time any better
  timed = paced.install(monkeypatch, slower)
  (found,) = reaching.reach(network, pixels, (1.5,), BATCH)
  speed = found.speed
  assert speed.reached == pytest.approx(1.5, rel=0.06)
  assert speed.reached == pytest.approx(speed.predicted / slower, rel=0.02)
  assert (speed.asked, speed.batch) == (1.5, BATCH)
  assert (len(timed) > 1) == (slower != 1)
  pruned = network.with_thresholds(found.thresholds)
  kept = np.asarray(pruned(pixels, "masked").kept)
  np.testing.assert_allclose(kept.mean(axis=0), speed.counts, atol=0.51)  # both keep as much
  kept = np.array(speed.counts) if speed.execution == "fixed" else kept
  share = network.gmacs(kept).mean() / network.dense_gmacs
  assert speed.budget == pytest.approx(share, rel=1e-3)


def test_what_cannot_be_reached_is_refused_before_images_run(network, pixels, monkeypatch):
  paced.install(monkeypatch)
  monkeypatch.setattr(reaching, "Calibrator", None)
  most = solving.fastest(paced.table(ARCH, BATCH), ARCH)
  expected = f"speed-up 9 cannot be reached: with every patch pruned from block 2 on, {most:.1f}"
  with pytest.raises(InputError, match=expected):
    reaching.reach(network, pixels, (1.5, 9.0), BATCH)


def test_speeds_that_come_to_the_same_are_refused(network, pixels, monkeypatch):
  paced.install(monkeypatch)
  with pytest.raises(InputError, match="lead to the same GMACs: give speed-ups further apart"):
    reaching.reach(network, pixels, (1.5, 1.5000001), BATCH)


def test_a_network_of_one_stage_has_one_schedule(pixels, monkeypatch):
  paced.install(monkeypatch)
  network = tiny.network(tiny.arch(depth=5, prune_before=(2,)))
  assert isinstance(network, Network)
  (found,) = reaching.reach(network, pixels, (1.3,), BATCH)
  assert found.weights == ()
  assert len(found.speed.counts) == 1
