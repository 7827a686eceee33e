"""One network for all budgets: every step draws its own."""

import jax
import numpy as np
import optax
import pytest
import tiny

from asvit_jax import network, vit
from asvit_jax.config import rules
from asvit_jax.core.errors import InputError
from asvit_jax.losses.objective import Objective
from asvit_jax.run import metrics
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.training import parallel, session
from asvit_jax.training.step import Options, create_state, make_step
from asvit_jax.training.train import train

ARCH = tiny.TRAINED

pytestmark = pytest.mark.usefixtures("tiny_variant")


def config(folder, init_from, **changes):
  ours = {"init_from": str(init_from), "budget": 0.7, "thresholds": "calibrated"}
  return tiny.config(folder, **ours | {"budget_range": (0.5, 0.9), "eval.pictures": 1} | changes)


@pytest.mark.slow
def test_a_run_draws_a_budget_each_step_and_ends_as_a_network_for_all_of_them(
  tmp_path, folder, dense_weights
):
  train(config(folder, dense_weights, **{"eval.every": 6}), tmp_path / "run")
  lines = metrics.read(tmp_path / "run", "train")
  drawn = [line["drawn_budget"] for line in lines]
  assert all(0.5 <= budget <= 0.9 for budget in drawn)
  assert len(set(drawn)) == len(drawn)
  dense = dense_gmacs(ARCH)
  for line in lines:
    expected = abs(line["gmacs"] - line["drawn_budget"] * dense)
    assert line["budget"] == pytest.approx(expected, abs=1e-9)
    assert len(line["thresholds"]) == ARCH.stages
  # What is drawn is what runs: more is kept where more may be spent.
  assert np.corrcoef(drawn, [line["gmacs"] for line in lines])[0, 1] > 0.7

  trained = network.load(tmp_path / "run")
  assert trained.budgets[0] == 0.7
  assert (min(trained.budgets), max(trained.budgets)) == (0.5, 0.9)
  assert trained.params["thresholds"].shape == (len(trained.budgets), ARCH.stages)
  trained.save(tmp_path / "weights.safetensors")
  again = network.load(tmp_path / "weights.safetensors")
  assert again.budgets == trained.budgets
  jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)


@pytest.mark.optimized
@pytest.mark.slow
def test_a_run_that_stopped_goes_on_to_the_bit(tmp_path, folder, dense_weights, monkeypatch):
  ours = config(folder, dense_weights, total_steps=3, **{"eval.pictures": 0})
  train(ours, tmp_path / "whole")
  with monkeypatch.context() as patched:
    patched.setattr(session.hosts.StopSignal, "received", lambda self, step: step == 2)
    assert train(ours, tmp_path / "run")["finished"] is False
  train(ours, tmp_path / "run")
  whole, run = (network.load(tmp_path / name) for name in ("whole", "run"))
  jax.tree.map(np.testing.assert_array_equal, run.params, whole.params)


@pytest.mark.slow
def test_parts_of_a_batch_draw_what_the_whole_batch_draws(tmp_path, folder, dense_weights):
  lines = []
  for name, accumulate in (("one", 1), ("two", 2)):
    train(
      config(folder, dense_weights, total_steps=2, accumulate=accumulate, **{"eval.pictures": 0}),
      tmp_path / name,
    )
    lines.append(metrics.read(tmp_path / name, "train"))
  for one, two in zip(*lines, strict=True):
    assert one["drawn_budget"] == two["drawn_budget"]
    for key in ("loss", "gmacs", "budget"):
      assert one[key] == pytest.approx(two[key], rel=1e-4, abs=1e-9)


@pytest.mark.slow
def test_the_budget_term_moves_the_thresholds_of_the_budgets_that_were_drawn():
  rng = np.random.default_rng(2)
  batch = {
    "image": rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8),
    "label": rng.integers(0, 3, 16).astype(np.int32),
  }
  images = tiny.normalize(batch["image"])
  row = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.9, 0.8, 0.7))["thresholds"]
  # All rows keep far more than the least budgets allow.
  student = network.Network(ARCH, tiny.params(ARCH)).with_thresholds(
    np.stack([row, row, row]), (0.2, 0.3, 0.9)
  )
  weights = {"classification": 0.0, "budget": 1e8, "distillation": 0.0}
  objective = Objective(weights, 0.3 * dense_gmacs(ARCH), temperature=1e-2)
  optimizer = optax.sgd(1e-9)
  options = Options(budget_range=(0.2, 0.3))
  step = parallel.parallelize(make_step(student, student.dense, objective, optimizer, options))
  state = parallel.replicate(create_state(student.params, optimizer, 0.0))
  teacher = parallel.replicate(student.dense.params)
  state, _ = step(state, teacher, parallel.shard(batch))
  after = np.array(parallel.unreplicate(state).params["thresholds"])
  moved = after - np.asarray(student.params["thresholds"])
  assert (moved[:2] >= 0).all()
  assert (moved[:2].max(axis=1) > 0).all()  # both rows that were interpolated between
  np.testing.assert_array_equal(moved[2], 0)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"budget_range": (0.8, 0.9)}, r"budget_range \(0\.8, 0\.9\) is not valid: .* around budget"),
    ({"budget_range": (0.9, 0.5)}, r"budget_range .* is not valid: expected two increasing"),
    ({"budget_range": (0.5, 1.1)}, r"budget_range 1.1 is not in \(0, 1\]"),
    ({"budget_range": (0.01, 0.9)}, r"budget 0\.01 cannot be met"),
    ({"thresholds": "fixed"}, "thresholds 'fixed' is not valid: expected calibrated"),
  ],
)
def test_a_range_that_cannot_be_is_refused(folder, dense_weights, changes, said):
  with pytest.raises(InputError, match=said):
    rules.check(config(folder, dense_weights, **changes))


def test_a_range_needs_a_budget(folder):
  with pytest.raises(InputError, match=r"budget_range .* is not valid"):
    rules.check(tiny.config(folder, budget_range=(0.5, 0.9)))


@pytest.mark.slow
def test_weights_for_several_budgets_are_a_start_for_one(tmp_path, folder, dense_weights):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
  dial = network.Network(ARCH, tiny.params(ARCH.dense)).calibrate(images, (0.5, 0.9))
  dial.save(tmp_path / "dial.safetensors")
  ours = tiny.config(
    folder, init_from=str(tmp_path / "dial.safetensors"), budget=0.7, total_steps=1
  )
  train(ours, tmp_path / "run")
  trained = network.load(tmp_path / "run")
  assert trained.budgets == ()
  assert trained.params["thresholds"].shape == (ARCH.stages,)
  assert vit.prunes(trained.params)
