"""Runs that are told to stop, that diverge, and checkpoints that are damaged."""

import errno
import json
import os
import pathlib
import resource
import shutil
import signal

import damages
import jax
import numpy as np
import pytest
import tiny

from asvit_jax import network, vit
from asvit_jax.core import leaves
from asvit_jax.core.errors import DivergedError, InputError
from asvit_jax.evaluation import one_pass
from asvit_jax.run import metrics
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.training import session
from asvit_jax.training.train import train
from asvit_jax.weights import saving

ARCH = tiny.TRAINED.dense

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture
def config(tmp_path, folder):
  start = tmp_path / "dense.safetensors"
  saving.save(start, tiny.params(ARCH))
  return tiny.config(folder, init_from=str(start), **{"eval.pictures": 0})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """(config, workdir) of a run that ended, for tests to copy."""
  root = tmp_path_factory.mktemp("finished")
  saving.save(root / "dense.safetensors", tiny.params(ARCH))
  changes = {"init_from": str(root / "dense.safetensors"), "eval.pictures": 0}
  config = tiny.config(tiny.write_folder(root / "images"), **changes)
  with pytest.MonkeyPatch.context() as patched:
    patched.setitem(vit.VARIANTS, "tiny", tiny.TRAINED)
    train(config, root / "run")
  return config, root / "run"


def trained(workdir):
  """Everything a run says and everything it arrived at, but for how fast it was."""
  lines = [
    {k: v for k, v in line.items() if k not in ("images_per_s", "data_wait")}
    for line in metrics.read(workdir)
  ]
  return lines, jax.tree.map(np.asarray, network.load(workdir).params)


@pytest.mark.optimized
@pytest.mark.slow
def test_sigterm_saves_the_step_and_the_same_command_goes_on_to_the_bit(
  tmp_path, config, monkeypatch
):
  train(config, tmp_path / "whole")
  make_program = session.make_program

  def terminated_in_the_third_step(*args):
    program, objective = make_program(*args)
    calls = []

    def call(*args):
      calls.append(args[-1])
      if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
      return program(*args)

    return call, objective

  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patched:
    patched.setattr(session, "make_program", terminated_in_the_third_step)
    result = train(config, tmp_path / "stopped")
  assert result == {"workdir": str(tmp_path / "stopped"), "step": 3, "finished": False}
  assert signal.getsignal(signal.SIGTERM) == before
  assert Checkpoints(tmp_path / "stopped").latest_step == 3

  train(config, tmp_path / "stopped")
  ours, theirs = trained(tmp_path / "stopped"), trained(tmp_path / "whole")
  assert ours[0] == theirs[0]
  jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


@pytest.mark.optimized
@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_with_room_again_it_goes_on_to_the_bit(
  tmp_path, config, monkeypatch
):
  train(config, tmp_path / "whole")
  save = Checkpoints.save
  before = resource.getrlimit(resource.RLIMIT_FSIZE)

  def save_on_a_full_disk(self, state, ranks=None):
    if int(state.step) == 4:
      self.wait()
      # Files of a checkpoint grow larger than this; what else is written does not.
      resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    save(self, state, ranks)

  with monkeypatch.context() as patched:
    patched.setattr(Checkpoints, "save", save_on_a_full_disk)
    try:
      with pytest.raises(InputError, match=r"checkpoint cannot be written.*; step 3 is saved"):
        train(config, tmp_path / "run")
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert Checkpoints(tmp_path / "run").latest_step == 3
  train(config, tmp_path / "run")
  ours, theirs = trained(tmp_path / "run"), trained(tmp_path / "whole")
  assert ours[0] == theirs[0]
  jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


def test_metrics_that_cannot_be_written_end_the_run(tmp_path, config, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")

  monkeypatch.setattr(metrics.Metrics, "write", full)
  with pytest.raises(InputError, match=r"cannot read or write .*No space left .*'metrics"):
    train(config, tmp_path / "run")


@pytest.mark.slow
def test_sigterm_in_an_evaluation_saves_at_once_and_the_next_run_evaluates(
  tmp_path, config, monkeypatch
):
  train(config, tmp_path / "whole")
  eval_batches = one_pass.loader.eval_batches

  def terminated_in_the_evaluation(*args):
    for i, batch in enumerate(eval_batches(*args)):
      if i == 1:
        os.kill(os.getpid(), signal.SIGTERM)
      yield batch

  with monkeypatch.context() as patched:
    patched.setattr(one_pass.loader, "eval_batches", terminated_in_the_evaluation)
    result = train(config, tmp_path / "run")
  assert (result["step"], result["finished"]) == (3, False)
  assert {line["kind"] for line in metrics.read(tmp_path / "run")} == {"train"}
  assert Checkpoints(tmp_path / "run").latest_step == 3
  train(config, tmp_path / "run")
  ours, theirs = trained(tmp_path / "run"), trained(tmp_path / "whole")
  assert ours[0] == theirs[0]
  jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])


@pytest.mark.slow
def test_a_run_goes_on_only_with_the_images_and_the_teacher_it_began_with(tmp_path, folder):
  teacher = tmp_path / "dense.safetensors"
  saving.save(teacher, tiny.params(ARCH))
  config = tiny.config(folder, init_from=str(teacher), budget=0.6, **{"eval.pictures": 0})
  config.total_steps = 2
  train(config, tmp_path / "run")
  saving.save(teacher, tiny.params(ARCH, seed=1))
  for dry_run in (True, False):
    with pytest.raises(InputError, match="began with another teacher"):
      train(config, tmp_path / "run", dry_run)
  saving.save(teacher, tiny.params(ARCH))
  next(folder.glob("train/*/*.jpg")).unlink()
  with pytest.raises(InputError, match="began with 24 images to train on, now there are 23"):
    train(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
  "damage",
  [damages.ALL[0], *(pytest.param(d, marks=pytest.mark.slow) for d in damages.ALL[1:])],
)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
  tmp_path, finished, damage, capsys
):
  config, whole = finished
  run = tmp_path / "run"
  shutil.copytree(whole, run)
  damage(run / "checkpoints" / "6")
  train(config, run)  # step 4 is the one before
  errors = capsys.readouterr().err
  assert "WARNING: checkpoint" in errors
  assert "6 is damaged" in errors
  assert f"resuming {run} from step 4 of 6" in errors
  assert trained(run)[0] == trained(whole)[0]
  assert len(list((run / "damaged").iterdir())) == 1  # moved, not deleted


def test_every_evaluated_step_can_be_the_best(tmp_path, config):
  config.checkpoint_every = 4
  train(config, tmp_path)
  assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())[-2:] == [4, 6]
  top1 = {line["step"]: line["top1"] for line in metrics.read(tmp_path, "eval")}
  assert set(top1) == {3, 6}
  best = max(top1, key=lambda step: (top1[step], step))
  assert (tmp_path / "checkpoints" / str(best)).is_dir()


def test_where_every_checkpoint_is_damaged_the_error_says_so(tmp_path, finished):
  run = tmp_path / "run"
  shutil.copytree(finished[1], run)
  for step in (run / "checkpoints").iterdir():
    shutil.rmtree(step / "ema")
  with pytest.raises(InputError, match=r"no checkpoint in .* can be restored"):
    network.load(run)


@pytest.mark.slow
def test_a_run_that_diverges_stops_and_names_the_last_good_checkpoint(tmp_path, config, finished):
  config.update({"checkpoint_every": 1, "max_skipped_steps": 1})
  good = trained(finished[1])[1]
  other = tmp_path / "other"
  config.optimizer.lr = 1e30  # the second step sees weights that overflow
  with pytest.raises(DivergedError, match=r"not finite for 2 steps in a row.*last good checkpoint"):
    train(config, other)
  params = network.load(other).params
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(good))


@pytest.mark.slow
def test_a_dry_run_writes_nothing_and_counts_everything(tmp_path, config, capsys):
  config.optimizer.warmup = 0.5
  (pathlib.Path(config.data.dir) / "val" / "ant" / "x.heic").touch()
  plan = train(config, tmp_path / "run", dry_run=True)
  assert not (tmp_path / "run").exists()
  json.dumps(plan)
  assert plan["images"] == 24
  assert plan["eval_images"] == 10
  assert plan["steps"] == 6
  assert (plan["batch_size"], plan["batch_a_device"], plan["devices"]) == (8, 8, 1)
  assert (plan["evaluations"], plan["checkpoints"]) == (2, 4)  # at 3, 6 and at 2, 3, 4, 6
  assert plan["warmup_steps"] == 3
  assert plan["lr_peak"] == pytest.approx(0.064 * 8 / 512)
  assert plan["lr_end"] == pytest.approx(2e-6 * 8 / 512)
  assert plan["gmacs_target"] is None
  said = capsys.readouterr().err
  assert "learning rate 0.001 after 3 steps of warm-up" in said
  assert plan["notes"] == [f"left out of {config.data.dir}/val: 1 .heic"]
  assert plan["notes"][0] in said
  assert plan["parameters"] == leaves.count(tiny.params(ARCH))
  assert plan["memory_mb"] > 0
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write to workdir"):
    train(config, tmp_path / "file" / "run", dry_run=True)
  config.optimizer.freeze = "no such parameter"
  with pytest.raises(InputError, match="matches no parameter"):
    train(config, tmp_path / "run", dry_run=True)
