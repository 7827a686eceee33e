"""What fails or hangs while a run trains loses nothing that was trained, and is said last."""

import os
import signal
import threading
import time

import hanging
import jax
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.data import loader
from asvit_jax.evaluation import one_pass
from asvit_jax.run import checkpoints, metrics
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.training import session
from asvit_jax.training.train import train

SLOW_TRAINING = pytest.param("training", marks=pytest.mark.slow)

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture
def config(folder, dense_weights):
  changes = {"eval.pictures": 0, "checkpoint_every": 100, "data.workers": 0}
  return tiny.config(folder, init_from=str(dense_weights), **changes)


def after(count, happens):
  """`loader`'s batches, of which after so many something happens instead."""

  def instead(make):
    def batches(*args):
      for i, batch in enumerate(make(*args)):
        if i == count:
          happens()
        yield batch

    return batches

  return instead


def fail():
  raise InputError("an image cannot be read")


@pytest.mark.parametrize("of", [SLOW_TRAINING, "evaluation"])
@pytest.mark.slow
def test_an_image_that_cannot_be_read_loses_no_step(tmp_path, config, monkeypatch, of):
  train(config, tmp_path / "whole")
  run = tmp_path / "run"
  with monkeypatch.context() as patched:
    place, name = (
      (session.loader, "train_batches") if of == "training" else (one_pass.loader, "eval_batches")
    )
    patched.setattr(place, name, after(2, fail)(getattr(loader, name)))
    with pytest.raises(InputError, match="an image cannot be read"):
      train(config, run)
  assert Checkpoints(run).latest_step == (2 if of == "training" else 3)
  train(config, run)
  check_same(tmp_path / "whole", run)


def check_same(one, other):
  """Two runs said the same, and arrived at the same weights, to the bit."""
  lines, weights = [], []
  for workdir in (one, other):
    left_out = ("images_per_s", "data_wait")
    lines.append([{k: v for k, v in x.items() if k not in left_out} for x in metrics.read(workdir)])
    weights.append(Checkpoints(workdir).restore_weights(tiny.TRAINED.dense, "params"))
  assert lines[0] == lines[1]
  jax.tree.map(np.testing.assert_array_equal, *weights)


@pytest.mark.slow
@pytest.mark.parametrize("of", ["training", "evaluation"])
def test_a_signal_ends_a_run_whose_data_hang(tmp_path, config, monkeypatch, of):
  """As on a network disk that is gone: the read never returns."""
  train(config, tmp_path / "whole")
  run, released = tmp_path / "run", threading.Event()

  def hang():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    released.wait(60)

  with monkeypatch.context() as patched:
    place, name = (
      (session.loader, "train_batches") if of == "training" else (one_pass.loader, "eval_batches")
    )
    patched.setattr(place, name, after(2, hang)(getattr(loader, name)))
    with hanging.never():
      result = train(config, run)
  released.set()
  step = result["step"]
  assert result == {"workdir": str(run), "step": step, "finished": False}
  assert step in ((1, 2) if of == "training" else (3,))  # the signal may come while it compiles
  assert Checkpoints(run).latest_step == step
  train(config, run)
  check_same(tmp_path / "whole", run)


@pytest.mark.slow
def test_a_step_being_saved_is_there_before_the_error_is_said(tmp_path, config, monkeypatch):
  config.checkpoint_every = 2
  wait, order = Checkpoints.wait, []

  def slow(self):
    time.sleep(0.2)
    wait(self)
    order.append(self.latest_step)

  monkeypatch.setattr(Checkpoints, "wait", slow)
  monkeypatch.setattr(
    session.Session, "_check_finite", lambda self, step, values: step == 3 and fail()
  )
  with pytest.raises(InputError, match="an image cannot be read"):
    train(config, tmp_path / "run")
  assert order[-1] == 2


@pytest.mark.slow
def test_a_run_ends_at_its_first_save_where_that_cannot_be_read(tmp_path, config, monkeypatch):
  config.checkpoint_every = 2

  def lose(self, step, targets):
    return None, checkpoints.damage.DamagedError("checksums differ")

  monkeypatch.setattr(Checkpoints, "_read", lose)
  with pytest.raises(
    InputError, match=r"first checkpoint of the run, .*/2, was written but cannot"
  ):
    train(config, tmp_path / "run")
  assert [line["step"] for line in metrics.read(tmp_path / "run")] == [1, 2]


@pytest.mark.slow
def test_a_run_in_a_directory_of_brackets_goes_on(tmp_path, config):
  config.total_steps = 3
  run = tmp_path / "run[1]"
  train(config, run)
  config.total_steps = 6
  train(config, run)
  assert Checkpoints(run).steps == [3, 6]
  assert list((run / "tensorboard").iterdir())
