"""The same run on other numbers of devices and hosts, by pmap and shard_map, in real processes."""

import json
import os
import signal

import processes
import pytest
import tiny

from asvit_jax.config import identity
from asvit_jax.core import hosts
from asvit_jax.core.errors import InputError
from asvit_jax.run import metrics
from asvit_jax.training.train import train
from asvit_jax.weights import saving

STEPS = 20

SCRIPT = """
import json, os, signal, sys
import tiny
from asvit_jax import vit
from asvit_jax.core import hosts
from asvit_jax.training.train import train
folder, workdir, changes = sys.argv[1:]
vit.VARIANTS["tiny"] = tiny.TRAINED
hosts.initialize()
import jax
changes = json.loads(changes)
assert jax.device_count() == changes.pop("devices"), jax.devices()
if jax.process_index() == changes.pop("blind"):  # takes the newest checkpoint for damaged
  from asvit_jax.core import leaves
  checksums, calls = leaves.checksums, []
  def wrong(tree):
    calls.append(tree)
    return {name: sum + (len(calls) == 3) for name, sum in checksums(tree).items()}
  leaves.checksums = wrong  # the first are of the teacher and of the weights it begins with
if jax.process_index() == changes.pop("victim"):
  received = hosts.StopSignal.received
  def killed(self, step):
    if step == changes["total_steps"] // 2:
      os.kill(os.getpid(), signal.SIGKILL)
    return received(self, step)
  hosts.StopSignal.received = killed
with hosts.failing_fast():
  train(tiny.config(folder, **changes), workdir)
"""


@pytest.fixture
def run(folder, tmp_path):
  """Trains on `count` hosts of `devices` each; returns what host 0 wrote.

  Half way through, the process with the index `victim` kills itself; then the exit statuses are
  returned instead. The one with the index `blind` takes the last checkpoint for damaged.
  """
  start = tmp_path / "dense.safetensors"
  saving.save(start, tiny.params(tiny.TRAINED.dense))

  def run(name, count=1, devices=1, victim=None, blind=None, **changes):
    changes = {
      "init_from": str(start),
      "budget": 0.6,
      "thresholds": "calibrated",
      "total_steps": STEPS,
      "optimizer.lr": 1.28e-3,  # 2e-5 at this batch, as published
      "eval.batch_size": 4,
      "eval.every": STEPS,
      "checkpoint_every": STEPS,
      "eval.pictures": 0,
      "devices": count * devices,
      "victim": victim,
      "blind": blind,
    } | changes

    def log(i):
      return tmp_path / f"{name}.{i}.log"

    arguments = [folder, tmp_path / name, json.dumps(changes)]
    codes = processes.run_hosts(count, "-c", SCRIPT, *arguments, devices=devices, log=log)
    if victim is not None:
      return codes
    for i, code in enumerate(codes):
      assert code == 0, log(i).read_text()[-3000:]
    run.said = log(0).read_text()
    return metrics.read(tmp_path / name)

  return run


def assert_same_run(ours, theirs):
  assert [(line["step"], line["kind"]) for line in ours] == [
    (line["step"], line["kind"]) for line in theirs
  ]
  for a, b in zip(ours, theirs, strict=True):
    for key in ("loss", "classification", "budget", "distillation", "gmacs", "top1", "images"):
      if key in b:
        assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-8), (key, b["step"])
    if b["kind"].startswith("eval"):
      assert a["images"] == 10  # every image once, though no batch size divides them
      for ours_, theirs_ in zip(a["kept"], b["kept"], strict=True):
        assert ours_ == pytest.approx(theirs_)


@pytest.mark.slow
def test_devices_hosts_and_accumulation_change_nothing(run):
  mixing = {"mix.mixup": 0.8, "mix.cutmix": 1.0, "mix.erasing": 0.25, "data.repeats": 3}
  one = run("one", **mixing)
  assert len([line for line in one if line["kind"] == "train"]) == STEPS
  assert one[0]["loss"] != one[STEPS - 1]["loss"]
  runs = {
    "four devices": {"devices": 4, "parallel": "shard_map"},
    "two hosts": {"count": 2, "devices": 2, "parallel": "pmap"},
    "accumulated": {"accumulate": 4},
  }
  if "KILLS" in os.environ:  # minutes; a shorter run of this kind is below
    runs["two hosts, mapped"] = {"count": 2, "devices": 2, "parallel": "shard_map"}
  for name, changes in runs.items():
    assert_same_run(run(name, **changes, **mixing), one)


@pytest.mark.slow
def test_where_one_host_is_killed_the_other_ends_and_the_pair_goes_on(run):
  changes = {"total_steps": 8, "checkpoint_every": 1, "eval.every": 3, "parallel": "shard_map"}
  changes |= {"count": 2}
  codes = run("killed", victim=1, **changes)
  assert codes[1] == -signal.SIGKILL
  assert codes[0] not in (0, -signal.SIGKILL)
  # Now one host cannot read the last checkpoint, and both go on from the one before.
  ours, said = run("killed", blind=1, **changes), run.said
  assert "is damaged" in said
  assert "checksums differ" in said  # as the other host found
  one = run("one", **changes | {"count": 1})
  assert_same_run(ours, one)


@pytest.mark.slow
@pytest.mark.skipif("KILLS" not in os.environ, reason="minutes: set KILLS, as in test_killed.py")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_pair_of_which_one_was_killed_goes_on_to_the_bit(run, victim):
  changes = {"count": 2, "total_steps": 8, "checkpoint_every": 1, "eval.every": 3}
  codes = run("killed", victim=victim, **changes)
  assert codes[victim] == -signal.SIGKILL
  assert codes[1 - victim] not in (0, -signal.SIGKILL)
  speeds = ("images_per_s", "data_wait")
  ours, theirs = (
    [{k: v for k, v in line.items() if k not in speeds} for line in run(name, **changes)]
    for name in ("killed", "whole")
  )
  assert ours == theirs


@pytest.mark.slow
def test_a_dense_network_trains_on_two_hosts(run, tmp_path, folder, tiny_variant):
  changes = {"budget": None, "total_steps": 4, "eval.every": 2}
  ours = run("two", count=2, **changes)
  train(identity.load(tmp_path / "two"), tmp_path / "one")
  assert_same_run(ours, metrics.read(tmp_path / "one"))


def test_a_part_of_the_variables_for_hosts_is_refused(monkeypatch):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
  monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
  with pytest.raises(InputError, match="without JAX_NUM_PROCESSES, JAX_PROCESS_ID"):
    hosts.initialize()
