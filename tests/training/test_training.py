"""Whole runs: killed and resumed, on several devices, from other runs, from code of before."""

import dataclasses
import functools
import json
import time

import jax
import numpy as np
import processes
import pytest
import tiny

from asvit_jax import network, vit
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.optimizers import building
from asvit_jax.run import metrics
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.training import parallel, session
from asvit_jax.training.step import state_shapes
from asvit_jax.training.train import train
from asvit_jax.weights import saving

ARCH = tiny.TRAINED

pytestmark = pytest.mark.usefixtures("tiny_variant")


def pruned_config(folder, init_from, **changes):
  return tiny.config(
    folder, **{"init_from": str(init_from), "budget": 0.6, "thresholds": "calibrated"} | changes
  )


def saved(config, workdir):
  """The whole `TrainState` of the last checkpoint of a run."""
  specs = vit.specs(ARCH if config.budget is not None else ARCH.dense)
  plan = tiny.plan(config)
  optimizer = building.create(plan.optimizer, plan.schedule)
  target = state_shapes(specs, optimizer, config.ema_decay)
  return jax.tree.map(np.asarray, Checkpoints(workdir).restore(target))


def lines(workdir):
  """What a run wrote, without how fast it was."""
  return [
    {k: v for k, v in line.items() if k not in ("images_per_s", "data_wait")}
    for line in metrics.read(workdir)
  ]


def assert_identical(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def differs(ours, theirs):
  return any(
    (a != b).any() for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  )


class Killed(Exception):
  """Stands for what ends a process."""


@pytest.fixture
def teachers(monkeypatch):
  """What every step of every run gets as the teacher's weights, after it ran."""
  seen, parallelize = [], parallel.parallelize

  def spied(step, *args):
    step = parallelize(step, *args)

    def call(state, teacher_params, batch):
      result = step(state, teacher_params, batch)
      seen.append(jax.tree.map(np.array, parallel.unreplicate(teacher_params)))
      return result

    return call

  monkeypatch.setattr(parallel, "parallelize", spied)
  return seen


@pytest.mark.optimized
@pytest.mark.slow
def test_a_run_killed_and_resumed_equals_an_uninterrupted_one_to_the_bit(
  tmp_path, folder, dense_weights, monkeypatch, teachers
):
  augmentation = {
    "data.rand_augment": 9.0,
    "data.repeats": 3,
    "mix.mixup": 0.8,
    "mix.cutmix": 1.0,
    "mix.erasing": 0.5,
  }
  config = pruned_config(folder, dense_weights, **augmentation)
  train(config, tmp_path / "whole")
  interrupted = tmp_path / "interrupted"
  train_batches = session.loader.train_batches

  def killed_after_five(*args, **kwargs):
    for i, batch in enumerate(train_batches(*args, **kwargs)):
      if i == 5:
        while not (interrupted / "checkpoints" / "4").exists():  # saving is asynchronous
          time.sleep(0.01)
        raise Killed
      yield batch

  with monkeypatch.context() as patched, pytest.raises(Killed):
    patched.setattr(session.loader, "train_batches", killed_after_five)
    # For an error, the last step would be saved; a process that is killed has no time to.
    patched.setattr(session.Session, "_save_by_itself", lambda *_: None)
    train(config, interrupted)
  steps = [line["step"] for line in lines(interrupted)]
  assert steps == [1, 2, 3, 3, 3, 4, 5]  # 3: evaluations too
  train(config, interrupted)

  assert_identical(saved(config, interrupted), saved(config, tmp_path / "whole"))
  assert lines(interrupted) == lines(tmp_path / "whole")
  assert [line["step"] for line in lines(interrupted)] == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]

  # The teacher is the initial dense network throughout; a resumed student is another one.
  assert len(teachers) == 6 + 5 + 2
  for teacher in teachers:
    assert_identical(teacher, tiny.params(ARCH.dense))
  assert differs(vit.without_thresholds(saved(config, interrupted).params), teachers[0])

  # The same command on the finished run: same answer, nothing written.
  def files():
    return {
      path: path.read_bytes()
      for path in interrupted.rglob("*")
      if path.is_file() and "tensorboard" not in path.parts
    }

  before = files()
  result = train(config, interrupted)
  last = {"workdir": str(interrupted), **metrics.read(interrupted, "eval")[-1]}
  assert result | last == result
  assert (result["target"], result["budget_met"]) == (0.6, abs(last["share"] / 0.6 - 1) <= 0.02)
  assert files() == before


@pytest.mark.slow
def test_four_devices_equal_one(tmp_path, folder, dense_weights):
  changes = {"eval.batch_size": 8, "total_steps": 4, "optimizer.lr": 0.0064}
  config = pruned_config(folder, dense_weights, **changes)
  one, four = tmp_path / "one", tmp_path / "four"
  script = (
    "import sys, jax, test_training; from test_training import *; assert jax.device_count() == 4\n"
    "folder, weights_file, workdir, changes = sys.argv[1:]\n"
    "vit.VARIANTS['tiny'] = tiny.TRAINED\n"
    "train(pruned_config(folder, weights_file, **json.loads(changes)), workdir)"
  )
  processes.succeed("-c", script, folder, dense_weights, four, json.dumps(changes), devices=4)
  train(config, one)

  ours, theirs = lines(four), lines(one)
  assert [line["step"] for line in ours] == [1, 2, 3, 3, 3, 4, 4, 4]
  for a, b in zip(ours, theirs, strict=True):
    assert a.keys() == b.keys()
    for key in ("loss", "classification", "budget", "distillation", "gmacs"):
      if key in b:
        assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-9), key
    for key in ("thresholds", "lr", "top1", "top5", "accuracy", "share"):
      if key in b:
        assert a[key] == pytest.approx(b[key], rel=1e-5), key
    assert str(a["kept"]) == str(b["kept"])
  # Both the weights and what is averaged; they did move.
  ours, theirs = saved(config, four), saved(config, one)
  close = functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5)
  for a, b in ((ours.params, theirs.params), (ours.ema, theirs.ema)):
    jax.tree.map(close, a, b)
  assert differs(vit.without_thresholds(theirs.params), tiny.params(ARCH.dense))


@pytest.mark.slow
def test_a_run_and_its_exported_weights_are_the_same_start(tmp_path, folder, dense_weights):
  dense, unseen = tmp_path / "dense", {"eval.pictures": 0}
  train(tiny.config(folder, init_from=str(dense_weights), total_steps=2, **unseen), dense)
  trained = network.load(dense)
  assert differs(trained.params, tiny.params(ARCH.dense))
  assert (trained.arch, trained.prunes) == (ARCH, False)  # it remembers where it could prune
  assert_identical(trained.params, saved(tiny.config(folder, total_steps=2), dense).ema)
  exported = tmp_path / "exported.safetensors"
  trained.save(exported)
  assert_identical(network.load(exported).params, trained.params)
  runs = []
  for name, init_from in (("a", dense), ("b", exported)):
    train(pruned_config(folder, init_from, total_steps=1, **unseen), tmp_path / name)
    runs.append(lines(tmp_path / name))
  assert runs[0] == runs[1]


@pytest.mark.slow
def test_calibrated_thresholds_start_at_the_budget(tmp_path, folder, dense_weights):
  # One step on all training images, as evaluation sees them.
  config = pruned_config(
    folder,
    dense_weights,
    **{"data.crop_scale": (1.0, 1.0), "data.hflip": False, "batch_size": 24, "total_steps": 1},
  )
  train(config, tmp_path / "run")
  first = metrics.read(tmp_path / "run", "train")[0]
  target = 0.6 * dense_gmacs(ARCH)
  assert first["gmacs"] == pytest.approx(target, rel=3e-3)
  assert first["budget"] == pytest.approx(abs(first["gmacs"] - target), abs=1e-9)


@pytest.mark.optimized
@pytest.mark.slow
def test_a_run_of_another_optimizer_goes_on_to_the_bit(tmp_path, folder, monkeypatch):
  changes = {"optimizer.name": "lion", "optimizer.arguments": "b1=0.8", "eval.pictures": 0}
  config = tiny.config(folder, total_steps=3, **changes)
  train(config, tmp_path / "whole")
  with monkeypatch.context() as patched:
    patched.setattr(session.hosts.StopSignal, "received", lambda self, step: step == 2)
    assert train(config, tmp_path / "run")["finished"] is False
  train(config, tmp_path / "run")
  assert_identical(saved(config, tmp_path / "run"), saved(config, tmp_path / "whole"))
  assert lines(tmp_path / "run") == lines(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_takes_from_its_weights_what_the_config_leaves_open_and_keeps_to_it(tmp_path, folder):
  file = tmp_path / "dense.safetensors"
  expected = Preprocessing(0.9, (0.5, 0.4, 0.3), (0.2, 0.2, 0.3), "bilinear")
  arch = dataclasses.replace(ARCH, prune_before=(1, 3))
  dense = network.Network(arch, tiny.params(ARCH.dense), preprocessing=expected)
  dense.save(file)
  config = pruned_config(folder, file, total_steps=1, **{"eval.pictures": 0})
  train(config, tmp_path / "run")
  trained = network.load(tmp_path / "run")
  assert (trained.arch, trained.preprocessing, trained.variant) == (arch, expected, "tiny")
  assert trained.classes == ("ant", "bee", "cat")  # of the data
  assert trained.params["thresholds"].shape == (2,)
  assert len(metrics.read(tmp_path / "run", "train")[0]["kept"]) == 2

  # The same weights under another description.
  dataclasses.replace(dense, preprocessing=Preprocessing()).save(file)
  for dry_run in (True, False):
    with pytest.raises(InputError, match=r"holds a run of another network \(crop_ratio was 0\.9"):
      train(config, tmp_path / "run", dry_run)


@pytest.mark.slow
def test_a_network_of_your_own_trains_dense_and_pruned_and_is_loaded_as_it_is(tmp_path, folder):
  own = {"model.variant": "mine", "model.width": 8, "model.heads": 2, "model.depth": 3}
  own |= {"model.prune_before": (1, 2), "model.mlp_ratio": 2.0, "model.stem": "conv"}
  own |= {"total_steps": 1, "eval.pictures": 0}
  train(tiny.config(folder, **own), tmp_path / "dense")
  train(pruned_config(folder, tmp_path / "dense", **own, budget=0.8), tmp_path / "pruned")
  dense, pruned = (network.load(tmp_path / name) for name in ("dense", "pruned"))
  assert dense.arch == pruned.arch
  assert (pruned.arch.width, pruned.arch.stem, pruned.arch.prune_before) == (8, "conv", (1, 2))
  assert pruned.prunes
  assert not dense.prunes


def test_weights_with_thresholds_need_a_budget(tmp_path, folder):
  file = tmp_path / "pruned.safetensors"
  saving.save(file, tiny.params(ARCH))
  with pytest.raises(InputError, match="does not fit this model: the file has thresholds"):
    train(tiny.config(folder, init_from=str(file)), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_weights_that_prune_where_a_budget_cannot_be_met_are_refused(tmp_path, folder):
  file = tmp_path / "dense.safetensors"
  arch = dataclasses.replace(ARCH, prune_before=(3,))
  network.Network(arch, tiny.params(ARCH.dense)).save(file)
  with pytest.raises(InputError, match=r"budget 0\.6 cannot be met: .* from block 3 on"):
    train(pruned_config(folder, file), tmp_path / "run")


def test_training_is_imported_without_what_only_some_runs_need():
  heavy = ("matplotlib", "tensorboard", "tensorflow", "tensorflow_datasets", "torch")
  script = f"import sys, asvit_jax.training.train; print([m for m in {heavy} if m in sys.modules])"
  assert processes.succeed("-c", script).strip() == "[]"
