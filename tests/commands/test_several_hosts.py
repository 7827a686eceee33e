"""The command lines on two TPU VMs, which meet by nothing but what JAX asks Google's metadata for.

There are no chips, so JAX is told that there are (JAX_FORCE_TPU_INIT), and computes on CPUs.
"""

import contextlib
import json
import os
import socket
import subprocess

import metadata_server
import processes
import pytest

from asvit_jax.run import metrics
from asvit_jax.weights import formats

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
import jax
os.environ.pop("TPU_SKIP_MDS_QUERY", None)  # which JAX sets where it sees no chip
from asvit_jax import commands
commands.run(sys.argv.pop(1))
"""

CONFIG = """
import tiny
from asvit_jax import vit
vit.VARIANTS["tiny"] = tiny.TRAINED
def get_config():
  return tiny.config({folder!r}, **{{"total_steps": 2, "eval.every": 2, "eval.pictures": 0}})
"""


@pytest.fixture
def config(tmp_path, folder):
  path = tmp_path / "config.py"
  path.write_text(CONFIG.format(folder=str(folder)))
  return path


@pytest.fixture
def slice_of_two(tmp_path):
  """A function that runs a command line on both hosts at once; returns what they answered."""
  with contextlib.ExitStack() as stack:
    servers = [
      stack.enter_context(metadata_server.serving(i, ("127.0.0.1", "127.0.0.1")))[0]
      for i in range(2)
    ]
    yield lambda *command: answers(tmp_path, servers, command)


def answers(tmp_path, servers, command):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
  running = []
  for i, server in enumerate(servers):
    environment = processes.environment(
      JAX_FORCE_TPU_INIT="1", GCE_METADATA_IP=server, JAX_COORDINATOR_PORT=port
    )
    assert not {"JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"} & environment.keys()
    with (tmp_path / f"{i}.log").open("w") as log:
      running.append(
        subprocess.Popen(
          processes.command("-c", SCRIPT, *command),
          env=environment,
          stdout=subprocess.PIPE,
          stderr=log,
          text=True,
        )
      )
  try:
    outs = [process.communicate(timeout=240)[0] for process in running]
  finally:
    for process in running:
      process.kill()
  said = (tmp_path / "0.log").read_text()
  assert [process.returncode for process in running] == [0, 0], said[-3000:]
  assert "waiting for the 2 hosts of this job (found by JAX: gcetpu)" in said
  return [json.loads(out.splitlines()[-1]) for out in outs]


def alone(*command):
  out = processes.succeed("-c", SCRIPT, *command, cwd=os.getcwd())
  return json.loads(out.splitlines()[-1])


def without_speed(result):
  return {k: v for k, v in result.items() if k != "images_per_s"}


def test_train_calibrate_evaluate_predict_and_export_on_a_slice(
  tmp_path, config, folder, slice_of_two
):
  run = tmp_path / "run"
  slice_of_two("train", "--config", config, "--workdir", run)
  assert [line["step"] for line in metrics.read(run, "train")] == [1, 2]

  evaluate = ("evaluate", "--config", config, "--workdir", run, "--calibrate", "0.7")
  lines, weights = tmp_path / "lines.jsonl", tmp_path / "calibrated.safetensors"
  ours = slice_of_two(*evaluate, "--per-image", lines, "--save-weights", weights)
  theirs = alone(*evaluate, "--per-image", tmp_path / "alone.jsonl")
  assert [without_speed(result) for result in ours] == [without_speed(theirs)] * 2
  assert lines.read_text() == (tmp_path / "alone.jsonl").read_text()
  assert len(lines.read_text().splitlines()) == 10

  source = ("--config", config, "--weights", weights)
  images = sorted(folder.glob("val/*/*.jpg"))[:3]
  predictions = slice_of_two("predict", *source, *images)
  assert predictions[0] == predictions[1]
  assert [p["file"] for p in predictions[0]["predictions"]] == [str(path) for path in images]

  out = tmp_path / "exported.safetensors"
  notes = slice_of_two("export", *source, "--format", "safetensors", "--out", out)
  assert notes[0] == notes[1]
  assert formats.read(out).description["variant"] == "tiny"


def test_hosts_that_see_other_images_say_which_one_does(tmp_path, config, folder, run_two):
  codes, said = run_two(config, tmp_path / "run")
  assert codes == [2, 2]
  for text in said:
    assert "the hosts differ: images to train on is 23 on host 1 and 24 on host 0" in text


def test_hosts_with_other_flags_say_which_one_has(tmp_path, config, run_two):
  codes, said = run_two(config, tmp_path / "run", second=["--config.checkpoint_every=7"])
  assert codes == [2, 2]
  for text in said:
    assert "the hosts differ: config.checkpoint_every is 7 on host 1 and " in text
  assert not (tmp_path / "run").exists()


@pytest.fixture
def run_two(tmp_path, folder):
  """A function that trains on two hosts, of which the second has other flags, or an image less."""
  script = """
import json, os, sys
from asvit_jax.data.sources import folder
from asvit_jax import commands
second = json.loads(sys.argv.pop(1))
if os.environ["JAX_PROCESS_ID"] == "1" and second:
  sys.argv += second
elif os.environ["JAX_PROCESS_ID"] == "1":
  opened = folder.folder.open
  class Fewer:
    def __init__(self, source):
      self.source, self.classes = source, source.classes
    def __len__(self):
      return len(self.source) - 1
    def __getitem__(self, index):
      return self.source[index]
  type(folder.folder).open = lambda self, data, split, *rest: (
    Fewer(opened(data, split, *rest)) if split == "train" else opened(data, split, *rest)
  )
commands.run(sys.argv.pop(1))
"""

  def run(config, workdir, second=()):
    command = ("-c", script, json.dumps(second), "train", "--config", config, "--workdir", workdir)
    codes = processes.run_hosts(2, *command, log=lambda i: tmp_path / f"{i}.log")
    return codes, [(tmp_path / f"{i}.log").read_text() for i in range(2)]

  return run
