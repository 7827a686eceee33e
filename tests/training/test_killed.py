"""Runs that are killed outright, again and again: nothing of them may show in what they arrive at.

`KILLS=20 python -m pytest tests/training/test_killed.py` kills at twenty moments instead of two, on
a disk and, where the extra `test-all` is installed, in an object store.
"""

import contextlib
import json
import os
import re
import signal
import subprocess

import jax
import numpy as np
import processes
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.config import identity
from asvit_jax.optimizers.building import create
from asvit_jax.run import metrics
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.training.step import state_shapes
from asvit_jax.weights import saving

pytestmark = [pytest.mark.slow, pytest.mark.optimized]

KILLS = os.environ.get("KILLS")
MOMENTS = ("save", "workers", "evaluation", "step")

# Trains; in the `count`-th save, evaluation or step, and `delay` seconds later, kills itself or one
# of its workers, or asks itself and all of them to stop.
SCRIPT = """
import json, multiprocessing, os, signal, sys, threading, time
import tiny
from asvit_jax import vit
from asvit_jax.data import transforms
from asvit_jax.evaluation import accuracy
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.training import parallel
from asvit_jax.training.train import train

def kill():
  if moment == "terminate":
    os.killpg(0, signal.SIGTERM)
  elif moment == "workers":
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
  else:
    os.kill(os.getpid(), signal.SIGKILL)

def killing(function):
  calls = 0
  def call(*args, **kwargs):
    nonlocal calls
    calls += 1
    if calls == count:
      threading.Timer(delay, kill).start()
    return function(*args, **kwargs)
  return call

if os.environ.get("SLOW_DATA"):  # workers import this file too
  decode = transforms.decode
  transforms.decode = lambda *args: time.sleep(0.1) or decode(*args)

if __name__ == "__main__":
  folder, workdir, changes, plan = sys.argv[1:]
  moment, count, delay = json.loads(plan)
  vit.VARIANTS["tiny"] = tiny.TRAINED
  if moment == "save":
    Checkpoints.save = killing(Checkpoints.save)
  elif moment == "evaluation":
    accuracy.evaluate_each = killing(accuracy.evaluate_each)
  elif moment:
    parallelize = parallel.parallelize
    parallel.parallelize = lambda *args: killing(parallelize(*args))
  train(tiny.config(folder, **json.loads(changes)), workdir)
"""


@pytest.fixture
def script(tmp_path):
  file = tmp_path / "killed.py"  # a file, as Grain's workers import what started them
  file.write_text(SCRIPT)
  return file


def run(script, folder, workdir, changes, plan=("", 0, 0)):
  """Trains in a process; returns its exit status and what it said.

  Its workers inherit stderr, so an end of it means that none of them outlived the process.
  """
  arguments = [folder, workdir, json.dumps(changes), json.dumps(plan)]
  with subprocess.Popen(
    processes.command(script, *arguments),
    env=processes.environment(),
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  ) as process:
    try:
      said = process.communicate(timeout=300)[1]
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  return process.returncode, said


def test_sigterm_to_all_processes_of_a_run_that_waits_for_data_still_saves(
  tmp_path, folder, script, tiny_variant, monkeypatch
):
  monkeypatch.setenv("SLOW_DATA", "1")
  changes = {"data.workers": 2, "total_steps": 20, "eval.every": 100, "checkpoint_every": 100}
  code, said = run(script, folder, tmp_path / "run", changes, ("terminate", 5, 0.15))
  assert code == 0, said[-3000:]
  assert "told to stop" in said
  assert 5 <= Checkpoints(tmp_path / "run").latest_step < 20


def arrived_at(workdir, changes):
  """Metrics but for speeds, and the whole state."""
  lines = [
    {k: v for k, v in line.items() if k not in ("images_per_s", "data_wait")}
    for line in metrics.read(workdir)
  ]
  config = identity.load(workdir)
  plan = tiny.plan(config)
  optimizer = create(plan.optimizer, plan.schedule)
  target = state_shapes(vit.specs(tiny.TRAINED), optimizer, config.ema_decay)
  return lines, Checkpoints(workdir).restore(target)


def test_a_run_killed_again_and_again_arrives_where_an_undisturbed_one_does(
  tmp_path, folder, script, tiny_variant
):
  check_killed_run(tmp_path, folder, script, tmp_path / "killed", int(KILLS or 2))


@pytest.mark.external
def test_so_does_one_in_an_object_store(tmp_path, folder, script, tiny_variant, bucket):
  check_killed_run(tmp_path, folder, script, f"{bucket}/run", int(KILLS or 1))


def check_killed_run(tmp_path, folder, script, killed, kills):
  """Kills the run in the workdir `killed` so often, and holds it against one that nobody killed."""
  start = tmp_path / "dense.safetensors"
  saving.save(start, tiny.params(tiny.TRAINED.dense))
  steps = 8 + 4 * kills
  changes = {
    "init_from": str(start),
    "budget": 0.6,
    "thresholds": "calibrated",
    "total_steps": steps,
    "eval.pictures": 1,
    "data.repeats": 3,
    "data.rand_augment": 9.0,
    "mix.mixup": 0.8,
    "mix.cutmix": 1.0,
    "mix.erasing": 0.25,
  }
  code, said = run(script, folder, tmp_path / "whole", changes)
  assert code == 0, said[-3000:]

  rng = np.random.default_rng(0)
  for i in range(kills):
    moment = MOMENTS[i % len(MOMENTS)]
    plan = (moment, int(rng.integers(1, 4)), float(rng.uniform(0, 0.1)))
    workers = {"data.workers": 2 * (moment in ("step", "workers"))}  # change nothing but where
    code, said = run(script, folder, killed, changes | workers, plan)
    print(i, plan, code, re.findall(r"resuming .* from (step \d+)", said))
    if moment == "workers":
      assert code not in (0, -signal.SIGKILL), said[-3000:]
      assert "data worker" in said, said[-3000:]
    else:
      assert code == -signal.SIGKILL, said[-3000:]
  code, said = run(script, folder, killed, changes)
  assert code == 0, said[-3000:]
  assert "resuming" in said

  ours, theirs = arrived_at(killed, changes), arrived_at(tmp_path / "whole", changes)
  assert ours[0] == theirs[0]
  assert int(ours[1].step) == steps
  jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])
