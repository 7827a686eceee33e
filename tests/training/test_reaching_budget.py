"""A training whose thresholds start far from the budget ends at it."""

import pytest
import tiny

from asvit_jax.run import metrics
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.training.train import train

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.mark.slow
def test_a_run_that_starts_dense_ends_at_its_budget(tmp_path, folder, dense_weights):
  """All training images a step, on which it is evaluated, too; their crops are the evaluation's."""
  changes = {
    "init_from": str(dense_weights),
    "budget": 0.7,
    "thresholds": "fixed",
    "total_steps": 60,
    "batch_size": 24,
    "data.crop_scale": (1.0, 1.0),
    "data.hflip": False,
    "data.eval_split": "train",
    "temperature": 1e-2,
    "loss.budget": 1e4,  # the network has a ten-thousandth of a GMAC
    "optimizer.lr": 1e-3,
    "optimizer.end_lr": 2e-5,
    "optimizer.thresholds_lr": 100.0,
    "ema_decay": 0.0,
    "eval.every": 60,
    "eval.pictures": 0,
    "checkpoint_every": 60,
  }
  result = train(tiny.config(folder, **changes), tmp_path / "run")
  lines = metrics.read(tmp_path / "run", "train")
  dense = dense_gmacs(tiny.TRAINED)
  assert lines[0]["gmacs"] > 0.95 * dense
  assert result["budget_met"]
  assert result["share"] == pytest.approx(0.7, rel=0.02)
  assert lines[-1]["gmacs"] == pytest.approx(0.7 * dense, rel=0.02)
