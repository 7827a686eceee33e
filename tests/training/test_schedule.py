import numpy as np
import pytest
import tiny

from asvit_jax.optimizers.schedule import Schedule, total_steps


def test_steps_follow_from_epochs_unless_they_are_given():
  config = tiny.config("", total_steps=None, epochs=2.5, batch_size=8)
  assert total_steps(config, images=100) == 32  # 31.25, and no image left out
  assert total_steps(config, images=1) == 1
  config.total_steps = 7
  assert total_steps(config, images=100) == 7


def test_the_learning_rate_is_a_cosine_between_its_end_points():
  changes = {"optimizer.lr": 8e-3, "optimizer.end_lr": 8e-4, "batch_size": 64}
  rate = Schedule.of(tiny.config("", **changes), 100)
  peak, end = 1e-3, 1e-4  # an eighth of 512
  assert rate(0) == pytest.approx(peak)
  assert rate(50) == pytest.approx((peak + end) / 2)
  assert rate(25) == pytest.approx(end + (peak - end) * (1 + np.cos(np.pi / 4)) / 2)
  assert rate(100) == pytest.approx(end)
  assert rate(150) == pytest.approx(end)


def test_after_its_steps_the_learning_rate_stays():
  changes = {"optimizer.lr": 8e-3, "optimizer.end_lr": 8e-4, "optimizer.warmup": 0.2}
  short = Schedule.of(tiny.config("", **changes), 100)
  longer = Schedule.of(tiny.config("", **changes, **{"optimizer.decay_steps": 100}), 300)
  for step in (0, 10, 20, 60, 100, 299):
    assert longer(step) == short(step)


def test_warm_up_climbs_linearly_to_the_peak():
  changes = {"optimizer.lr": 8e-3, "optimizer.end_lr": 0.0, "batch_size": 64}
  changes["optimizer.warmup"] = 0.2
  rate = Schedule.of(tiny.config("", **changes), 100)
  np.testing.assert_allclose([rate(i) for i in (0, 10, 20)], [0, 5e-4, 1e-3], atol=1e-9)
  assert rate(21) < rate(20)
  assert rate(100) == pytest.approx(0, abs=1e-9)
