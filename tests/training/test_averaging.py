"""Averaged weights: how they begin, what is left of the first ones, what else can be taken."""

import math

import jax
import numpy as np
import pytest
import tiny
from command_lines import run

from asvit_jax import network, vit
from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.training.step import decay_at, initial_share
from asvit_jax.training.train import train

ARCH = tiny.TRAINED.dense


def same(ours, theirs):
  pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("steps", [1, 35, 150])
def test_what_is_left_of_the_first_weights_is_what_the_average_holds(steps):
  for decay, warmup in ((0.99996, True), (0.9, True), (0.99996, False)):
    average = 1.0  # of a weight that was 1 at first and is 0 ever since
    for step in range(steps):
      average *= float(decay_at(step, decay, warmup))
    assert initial_share(steps, decay, warmup) == pytest.approx(average, rel=1e-4)
  assert initial_share(150, 0.99996, False) > 0.99
  assert initial_share(35, 0.99996, True) < 1e-7


def test_the_decay_grows_to_the_one_asked_for():
  found = [float(decay_at(step, 0.9, True)) for step in (0, 8, 79, 81, 10**6)]
  assert found == pytest.approx([0.1, 0.5, 80 / 89, 0.9, 0.9])
  assert decay_at(0, 0.9, False) == 0.9


@pytest.fixture
def finished(tmp_path, folder, tiny_variant):
  """The config and the workdir of a short run with a decay for long ones."""
  changes = {"ema_decay": 0.99996, "eval.pictures": 0, "total_steps": 4, "eval.every": 2}
  config = tiny.config(folder, **changes, checkpoint_every=1)
  train(config, tmp_path / "run")
  return config, tmp_path / "run"


@pytest.mark.slow
def test_a_short_run_averages_its_own_weights_and_every_way_to_load_takes_either(
  finished, tmp_path, capsys
):
  config, workdir = finished
  state = Checkpoints(workdir).restore_weights(ARCH, "params")
  first = vit.initial_params(ARCH)
  distance = {
    name: math.sqrt(
      sum(
        float(((a - b) ** 2).sum())
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(first), strict=True)
      )
    )
    for name, params in (("ema", network.load(workdir).params), ("raw", state))
  }
  assert distance["ema"] > 0.7 * distance["raw"]  # 1e-4 of it without the warm-up
  assert same(network.load(workdir, weights_of="raw").params, state)
  assert not same(network.load(workdir, weights_of="ema").params, state)

  file = tmp_path / "raw.safetensors"
  run("evaluate", "--workdir", workdir, "--weights-of", "raw", "--save-weights", file)
  assert same(network.load(file).params, state)
  run("export", "--workdir", workdir, "--step", 3, "--format", "safetensors", "--out", file)
  assert same(network.load(file).params, Checkpoints(workdir).restore_weights(ARCH, "ema", step=3))
  capsys.readouterr()
  config.update({"init_from": str(workdir), "init_weights_of": "raw", "init_step": "4"})
  config.total_steps = 1
  plan = train(config, tmp_path / "next", dry_run=True)
  assert "step 4, raw weights" in capsys.readouterr().err
  assert plan["ema_initial_share"] == pytest.approx(0.1)
  with pytest.raises(InputError, match=r"has no step 2: saved are 3, 4|has no step 1: saved are"):
    network.load(workdir, step=1)
  with pytest.raises(InputError, match="not a workdir"):
    network.load(file, step="best")


def test_a_run_from_before_the_warm_up_goes_on_without_it(tmp_path, folder, capsys):
  """`test_before` has a whole one."""
  plan = tiny.plan_of(folder)
  identity.save(plan, tmp_path)
  path = tmp_path / "config.json"
  path.write_text(path.read_text().replace('  "ema_warmup": true,\n', ""))
  begun = identity.as_begun(plan, tmp_path)
  assert (begun.ema_warmup, plan.ema_warmup) == (False, True)
  assert "resumes as it began, with ema_warmup=False" in capsys.readouterr().err
  assert identity.load(tmp_path).to_dict() == begun.given != plan.given
  identity.check_config(begun, tmp_path)
  assert identity.as_begun(plan, tmp_path / "new") is plan
