"""A training step by kernels is compared with XLA's; one that is wrong is found."""

import jax
import pytest
import tiny

from asvit_jax.measure import settings, steps
from asvit_jax.measure.parts import all_parts
from asvit_jax.measure.subjects import Subject
from asvit_jax.sparsity import step_kernels

ARCH = tiny.arch(width=64, heads=1, depth=3, prune_before=(1, 2))


@pytest.fixture(autouse=True)
def uncalibrated(monkeypatch):
  images = tiny.images(ARCH, 4)
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.4))
  one = Subject(tiny.network(ARCH).with_params(params), images, None)
  monkeypatch.setattr(steps, "subject", lambda *_: one)


def run(arch=ARCH):
  (row,) = steps.run(arch, "drop", (0.65,), 4, 2)
  return row


def test_it_agrees():
  row = run()
  assert row["what"] == "training step by kernels, interpreted"
  assert row["agrees"] is True
  assert row["loss_error"] < 1e-5
  assert 0 < row["gradient_error"] < 1e-3


@pytest.mark.slow
def test_what_is_wrong_is_found(monkeypatch):
  monkeypatch.setattr(step_kernels, "_mlp", lambda block, x: 0.9 * block.mlp(block.norm2(x)))
  jax.clear_caches()
  row = run()
  assert row["agrees"] is False
  assert row["gradient_error"] > 1e-2

  def fails(block, x):
    raise NotImplementedError("no such device")

  monkeypatch.setattr(step_kernels, "_mlp", fails)
  row = run()
  assert row["agrees"] is False
  assert "no such device" in row["error"]


def test_where_there_are_no_kernels_it_says_so(monkeypatch):
  assert "heads have 8 channels" in run(tiny.arch())["refused"]
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert "this is a gpu" in run()["refused"]


@pytest.mark.parametrize("chosen", [settings.QUICK, settings.FULL])
def test_both_steps_are_timed_on_a_tpu_alone(chosen):
  for platform, by in (("tpu", {None, "kernels"}), ("gpu", {None}), ("cpu", {None})):
    listed = [one for one in all_parts(chosen, platform) if one.kind == "training"]
    assert {one.of.get("by") for one in listed} == by
    assert len(listed) == len(by) * len(chosen.trained_by)
