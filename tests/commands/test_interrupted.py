"""Real processes that are told to stop: their exit status, and what they say."""

import contextlib
import json
import os
import signal
import subprocess

import processes
import pytest
import tiny

from asvit_jax.run.checkpoints import Checkpoints

pytestmark = pytest.mark.slow

TRAIN = [
  "train.py",
  "--config=configs/digits.py",
  "--config.total_steps=4000",
  "--config.eval.every=4000",
  "--config.checkpoint_every=4000",
  "--config.log_every=1",
  "--config.batch_size=16",
  "--config.data.check_images=0",
  "--config.model.depth=2",
  "--config.model.prune_before=1",
]


@contextlib.contextmanager
def started(*arguments, **options):
  """A process with a group of its own, as a shell gives one."""
  with subprocess.Popen(
    processes.command(*arguments),
    env=processes.environment(),
    cwd=processes.REPOSITORY,
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
    **{"stderr": subprocess.PIPE} | options,
  ) as process:
    try:
      yield process
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(process, text):
  for line in process.stderr:
    if text in line:
      return
  raise AssertionError(f"it never said {text!r}")


@pytest.mark.parametrize(
  ("number", "status", "workers"),
  [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 0), (signal.SIGHUP, 129, 0)],
)
def test_a_signal_to_the_group_saves_and_has_its_status(tmp_path, number, status, workers):
  with started(*TRAIN, "--workdir", tmp_path, f"--config.data.workers={workers}") as process:
    wait_for(process, "step 3/")
    os.killpg(process.pid, number)
    out, said = process.communicate(timeout=240)
  assert process.returncode == status, said
  result = json.loads(out)
  assert result["finished"] is False
  assert Checkpoints(tmp_path).latest_step == result["step"] >= 3
  assert said.splitlines()[-1].startswith(f"told to stop: saved step {result['step']} of 4000")
  assert "Traceback" not in said


def test_ctrl_c_ends_an_evaluation_in_a_line_and_leaves_nothing(tmp_path):
  made = tmp_path / "run"
  processes.succeed(
    *TRAIN, "--workdir", made, "--config.total_steps=1", "--config.eval.every=1",
    cwd=processes.REPOSITORY, timeout=240,
  )  # fmt: skip
  out = tmp_path / "out.jsonl"
  arguments = ("evaluate.py", "--workdir", made, "--per-image", out)
  with started(*arguments) as process:
    wait_for(process, "weights of")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=240)
  assert process.returncode == 130
  assert said.splitlines()[-1] == "interrupted"
  assert "Traceback" not in said
  assert [path.name for path in tmp_path.iterdir()] == ["run"]


WITHOUT_STDERR = """
import os, sys
os.close(2)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("closed", ["full", "closed"])
def test_training_goes_on_where_nobody_hears_it(tmp_path, closed):
  short = ("--config.total_steps=2", "--config.eval.every=2")
  without = ("-c", WITHOUT_STDERR) if closed == "closed" else ()
  arguments = (*without, *TRAIN, "--workdir", tmp_path, *short)
  with open("/dev/full", "w") as full, started(*arguments, stderr=full) as process:
    out, _ = process.communicate(timeout=240)
  assert process.returncode == 0
  assert json.loads(out)["step"] == 2


UNGUARDED = """
import tiny
from asvit_jax import vit
from asvit_jax.training.train import train
vit.VARIANTS["tiny"] = tiny.TRAINED
train(tiny.config({images!r}, **{{"data.workers": 2}}), {workdir!r})
"""


@pytest.mark.parametrize("through", ["file", "stdin"])
def test_a_script_without_a_guard_is_told_so(tmp_path, through):
  script = tmp_path / "script.py"
  images = tiny.write_folder(tmp_path / "images")
  script.write_text(UNGUARDED.format(images=str(images), workdir=str(tmp_path / "run")))
  with script.open() as stdin:
    given = {"stdin": stdin} if through == "stdin" else {}
    process = processes.run(*(["-"] if given else [script]), timeout=240, **given)
  last = process.stderr.splitlines()[-1]
  assert 'if __name__ == "__main__":' in last
  assert "data.workers" in last
  assert "another run" not in process.stderr


@pytest.mark.parametrize("limit", ["RLIMIT_FSIZE, (5000,", "RLIMIT_NOFILE, (20,"])
def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, limit):
  kind = limit.split(",")[0]
  script = f"""
import resource, sys
import test_checkpoints as made
from asvit_jax.core.errors import InputError
from asvit_jax.run.checkpoints import Checkpoints
checkpoints = made.save(sys.argv[1], 1)
resource.setrlimit(resource.{limit} resource.getrlimit(resource.{kind})[1]))
try:
  checkpoints.save(made.state(2))
  checkpoints.wait()
except InputError as error:
  print("error:", error, file=sys.stderr)
"""
  process = processes.run("-c", script, tmp_path, timeout=240)
  (line,) = process.stderr.splitlines()
  assert line.startswith("error: a checkpoint cannot be written")
  assert "File too large" in line or "Too many open files" in line
