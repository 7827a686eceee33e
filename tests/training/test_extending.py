"""Runs that become longer than they were meant to be, and configs taken from them."""

import jax
import numpy as np
import pytest
import tiny
from command_lines import assert_one_error, call, run

from asvit_jax import network
from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.optimizers.schedule import Schedule
from asvit_jax.run import inputs, metrics
from asvit_jax.training.train import train

pytestmark = pytest.mark.usefixtures("tiny_variant")


def config(folder, **changes):
  plain = {"eval.pictures": 0, "eval.every": 100, "checkpoint_every": 100, "total_steps": 2}
  return tiny.config(folder, **plain | changes)


@pytest.mark.slow
def test_a_finished_run_goes_on_as_if_it_had_been_as_long_from_the_start(tmp_path, folder):
  """To the bit, where the schedule is the same."""
  kept = {"optimizer.decay_steps": 2}
  whole = config(folder, total_steps=4, **kept)
  train(whole, tmp_path / "whole")
  train(config(folder), tmp_path / "kept")
  for wrong, said in (
    ({"total_steps": 1}, "has 2 steps, and this config would make it 1: .*--config.total_steps=2"),
    (
      {"total_steps": 4, "seed": 1},
      r"config \(seed was 0, is 1\).*--config.init_from=.*kept",
    ),
  ):
    with pytest.raises(InputError, match=said):
      train(config(folder, **wrong), tmp_path / "kept")
  assert train(whole, tmp_path / "kept")["step"] == 4
  ours, theirs = (network.load(tmp_path / name).params for name in ("kept", "whole"))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  rates = [line["lr"] for line in metrics.read(tmp_path / "kept", "train")]
  assert rates[2] == rates[3] == pytest.approx(2e-6 * 8 / 512)


def test_the_schedule_of_a_longer_run_is_said(tmp_path, folder):
  """Stretched over all of the new steps, unless it is told to stay; epochs count, too."""
  workdir = tmp_path / "run"
  identity.save(tiny.plan(config(folder, total_steps=4)), workdir)
  inputs.save({"images": 24, "teacher": 0}, workdir)
  longer = config(folder, total_steps=None, epochs=2.0)  # 6 steps of 8 among 24 images
  before = identity.check_config(tiny.plan(longer), workdir)
  now = float(Schedule.of(longer, 6)(4))
  said = identity.describe_extension(tiny.plan(longer), before)
  assert "from 4 to 6 steps: the learning rate of step 4 was 3.13e-08, and is" in said
  assert f"{now:.3g} by the new schedule (--config.optimizer.decay_steps=4 keeps" in said
  assert identity.describe_extension(tiny.plan(config(folder, total_steps=4)), before) is None
  with pytest.raises(InputError, match="has 4 steps, and this config would make it 3"):
    identity.check_config(tiny.plan(config(folder, total_steps=None, epochs=1.0)), workdir)


@pytest.mark.slow
def test_a_workdir_is_enough_for_every_tool_and_keys_change_its_config(tmp_path, folder):
  workdir = tmp_path / "run"
  first = run("train", "--config", _recipe(tmp_path, folder), "--workdir", workdir)
  again = run("train", "--workdir", workdir, "--config.total_steps=3", "--config.log_every", 2)
  assert (first["step"], again["step"]) == (2, 3)
  assert run("train", "--workdir", workdir) == again

  other = tiny.write_folder(tmp_path / "other", train=1, val=(2, 2, 2))
  plain = run("evaluate", "--workdir", workdir)
  moved = run("evaluate", "--workdir", workdir, f"--config.data.dir={other}")
  split = run("evaluate", f"--workdir={workdir}", "--config.data.eval_split", "train")
  assert (plain["images"], moved["images"], split["images"]) == (10, 6, 24)
  assert (plain["top1"], plain["top5"]) == (again["top1"], 100.0)
  weights = tmp_path / "w.safetensors"
  run("evaluate", "--workdir", workdir, "--save-weights", weights)
  keys = ("--config.data.dir", other, "--config.eval.batch_size=3")
  assert run("evaluate", "--weights", weights, *keys)["images"] == 6


def _recipe(tmp_path, folder):
  path = tmp_path / "recipe.py"
  path.write_text(
    "import tiny\n\n\ndef get_config():\n"
    f"  return tiny.config({str(folder)!r}, **{{'eval.pictures': 0, 'total_steps': 2,"
    " 'optimizer.decay_steps': 2})\n"
  )
  return path


def test_keys_without_a_config_that_mean_nothing_are_one_error(tmp_path):
  identity.save(tiny.plan_of(tmp_path, ema_decay=0.0), tmp_path / "run")
  arguments = ("evaluate.py", "--workdir", tmp_path / "run")
  assert_one_error(call(*arguments, "--config.data.dri=x"), "no key 'data.dri'", "'data.dir'")
  arguments = ("evaluate.py", "--workdir", tmp_path, "--config.data.dir=x")
  assert_one_error(call(*arguments), "is not a workdir of train.py")
