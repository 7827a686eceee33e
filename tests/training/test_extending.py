"""Runs that become longer than they were meant to be, and configs taken from them."""

import jax
import numpy as np
import pytest
import tiny
from command_lines import assert_one_error, call, run

from asvit_jax import network
from asvit_jax.core.errors import InputError
from asvit_jax.run import identity, metrics
from asvit_jax.training import loop
from asvit_jax.training.schedule import learning_rate

pytestmark = pytest.mark.usefixtures("tiny_variant")


def config(folder, **changes):
  plain = {"eval.pictures": 0, "eval.every": 100, "checkpoint_every": 100, "total_steps": 2}
  return tiny.config(folder, **plain | changes)


def test_a_finished_run_goes_on_and_its_schedule_says_how(tmp_path, folder, capsys):
  """Stretched over the new steps; or as if the longer run had begun so, to the bit."""
  kept = {"optimizer.decay_steps": 2}
  whole = config(folder, total_steps=4, **kept)
  loop.train(whole, tmp_path / "whole")
  loop.train(config(folder), tmp_path / "kept")
  for wrong, said in (
    ({"total_steps": 1}, "is one of 2 steps, and now there would be 1: .*--config.total_steps=2"),
    (
      {"total_steps": 4, "seed": 1},
      r"config \(seed was 0, is 1\).*--config.init_from=.*kept",
    ),
  ):
    with pytest.raises(InputError, match=said):
      loop.train(config(folder, **wrong), tmp_path / "kept")
  assert loop.train(whole, tmp_path / "kept")["step"] == 4
  ours, theirs = (network.load(tmp_path / name).params for name in ("kept", "whole"))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  rates = [line["lr"] for line in metrics.read(tmp_path / "kept", "train")]
  assert rates[2] == rates[3] == pytest.approx(2e-6 * 8 / 512)

  capsys.readouterr()
  longer = config(folder, total_steps=None, epochs=2.0, **{"optimizer.decay_steps": None})
  loop.train(longer, tmp_path / "kept")  # 6 steps of 8 among 24 images
  said = capsys.readouterr().err
  assert "extended from 4 to 6 steps: the learning rate of step 4 was 3.13e-08, and is" in said
  rates = [line["lr"] for line in metrics.read(tmp_path / "kept", "train")]
  expected = learning_rate(longer, 6)
  assert rates[4:] == pytest.approx([float(expected(4)), float(expected(5))])
  assert identity.load(tmp_path / "kept").epochs == 2.0


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
    f"  return tiny.config({str(folder)!r}, **{{'eval.pictures': 0, 'total_steps': 2}})\n"
  )
  return path


def test_keys_without_a_config_that_mean_nothing_are_one_error(tmp_path):
  identity.save(tiny.config(tmp_path, ema_decay=0.0), tmp_path / "run")
  arguments = ("evaluate.py", "--workdir", tmp_path / "run")
  assert_one_error(call(*arguments, "--config.data.dri=x"), "no key 'data.dri'", "'data.dir'")
  arguments = ("evaluate.py", "--workdir", tmp_path, "--config.data.dir=x")
  assert_one_error(call(*arguments), "is not a workdir of train.py")
