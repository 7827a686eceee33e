"""The same run on other numbers of devices and hosts, by pmap and shard_map, in real processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from asvit_jax import weights
from asvit_jax.training import loop, metrics

TESTS = Path(__file__).parent
STEPS = 20

SCRIPT = """
import json, sys
import tiny
from asvit_jax import vit
from asvit_jax.training import hosts, loop
folder, workdir, changes = sys.argv[1:]
vit.VARIANTS["tiny"] = tiny.TRAINED
hosts.initialize()
import jax
changes = json.loads(changes)
assert jax.device_count() == changes.pop("devices"), jax.devices()
loop.train(tiny.config(folder, **changes), workdir)
"""


@pytest.fixture
def run(folder, tmp_path):
  """Trains in `processes` of `devices` each; returns what host 0 wrote."""
  start = tmp_path / "dense.safetensors"
  weights.save(start, tiny.params(tiny.TRAINED.dense))

  def run(name, processes=1, devices=1, **changes):
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
      "devices": processes * devices,
    } | changes
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      port = free.getsockname()[1]
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
      "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
      "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    if processes > 1:
      environment |= {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(processes),
      }
    arguments = [folder, tmp_path / name, json.dumps(changes)]
    running = [
      subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        env=environment | ({"JAX_PROCESS_ID": str(i)} if processes > 1 else {}),
        stderr=(tmp_path / f"{name}.{i}.log").open("w"),  # a pipe nobody reads would fill up
      )
      for i in range(processes)
    ]
    for i, process in enumerate(running):
      code = process.wait(timeout=240)
      assert code == 0, (tmp_path / f"{name}.{i}.log").read_text()[-3000:]
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


def test_devices_hosts_and_accumulation_change_nothing(run):
  mixing = {"mix.mixup": 0.8, "mix.cutmix": 1.0, "mix.erasing": 0.25, "data.repeats": 3}
  one = run("one", **mixing)
  assert len([line for line in one if line["kind"] == "train"]) == STEPS
  assert one[0]["loss"] != one[STEPS - 1]["loss"]
  for name, changes in {
    "four devices": {"devices": 4, "parallel": "shard_map"},
    "two hosts": {"processes": 2, "devices": 2, "parallel": "pmap"},
    "two hosts, mapped": {"processes": 2, "devices": 2, "parallel": "shard_map"},
    "accumulated": {"accumulate": 4},
  }.items():
    assert_same_run(run(name, **changes, **mixing), one)


def test_a_part_of_the_variables_for_hosts_is_refused(monkeypatch):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
  monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
  with pytest.raises(loop.InputError, match="without JAX_NUM_PROCESSES, JAX_PROCESS_ID"):
    loop.hosts.initialize()
