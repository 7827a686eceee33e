"""Checkpoints by themselves: what is kept, what is noticed."""

import dataclasses
import errno
import shutil

import damages
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.run import checkpoints as checkpoints_module
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.training.step import create_state, state_shapes

ARCH = tiny.TRAINED
OPTIMIZER = optax.adam(1e-3)


def state(step, seed=0):
  """A `TrainState` that no other step and seed have."""
  created = create_state(tiny.params(ARCH, seed), OPTIMIZER, 0.5)
  ema = jax.tree.map(lambda x: x + step, created.params)
  return dataclasses.replace(created, step=np.int32(step), ema=ema)


def target(ema_decay=0.5):
  return state_shapes(vit.specs(ARCH), OPTIMIZER, ema_decay)


def save(workdir, *steps):
  checkpoints = Checkpoints(workdir)
  for step in steps:
    checkpoints.save(state(step))
  checkpoints.wait()
  return checkpoints


def test_what_is_restored_is_what_was_saved_to_the_bit(tmp_path):
  save(tmp_path, 3)
  checkpoints = Checkpoints(tmp_path)
  restored = checkpoints.restore(target())
  jax.tree.map(np.testing.assert_array_equal, restored, state(3))
  assert jax.tree.structure(restored) == jax.tree.structure(state(3))
  for name in ("params", "ema"):
    weights = checkpoints.restore_weights(ARCH, name)
    jax.tree.map(np.testing.assert_array_equal, weights, getattr(state(3), name))


@pytest.mark.parametrize(("raw", "kept"), [(0.0, [2, 4, 5]), (90.0, [2, 3, 4, 5])])
def test_the_best_steps_are_kept_beside_the_latest_two(tmp_path, raw, kept):
  checkpoints = Checkpoints(tmp_path)
  for step, ema in ((1, 50.0), (2, 70.0), (3, 60.0), (4, None), (5, 40.0)):
    ranks = {"ema": ema, "raw": raw if step == 3 else ema}
    checkpoints.save(state(step), None if ema is None else ranks)
    checkpoints.wait()
  assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == kept


@pytest.mark.parametrize("damage", damages.ALL)
def test_a_damaged_step_is_passed_over_and_set_aside(tmp_path, damage, capsys):
  save(tmp_path, 1, 2)
  damage(tmp_path / "checkpoints" / "2")
  checkpoints = Checkpoints(tmp_path)
  restored = checkpoints.restore(target())
  jax.tree.map(np.testing.assert_array_equal, restored, state(1))
  said = capsys.readouterr().err
  assert f"WARNING: checkpoint {tmp_path / 'checkpoints' / '2'} is damaged (step 2: " in said
  assert [path.name.split("_")[0] for path in (tmp_path / "damaged").iterdir()] == ["2"]
  assert checkpoints.steps == [1]
  checkpoints.save(state(2))  # the place is free again
  checkpoints.wait()
  assert Checkpoints(tmp_path).steps == [1, 2]


def test_where_every_step_is_damaged_the_error_names_each(tmp_path):
  save(tmp_path, 1, 2)
  for step in (1, 2):
    damages.delete(tmp_path / "checkpoints" / str(step))
  with pytest.raises(InputError, match=r"can be restored \(step 2: .*; step 1: "):
    Checkpoints(tmp_path).restore(target())
  assert not (tmp_path / "damaged").exists()  # who knows what they are


def test_a_checkpoint_of_another_network_is_no_good(tmp_path):
  save(tmp_path, 1)
  other = dataclasses.replace(ARCH, depth=5)
  with pytest.raises(InputError, match="it is of another network, or the storage fails"):
    Checkpoints(tmp_path).restore_weights(other, "params")


def test_a_checkpoint_without_checksums_is_read_with_a_warning(tmp_path, capsys):
  save(tmp_path, 1)
  shutil.rmtree(tmp_path / "checkpoints" / "1" / "checksums")
  restored = Checkpoints(tmp_path).restore_weights(ARCH, "params")
  jax.tree.map(np.testing.assert_array_equal, restored, tiny.params(ARCH))
  assert "has no checksums to verify" in capsys.readouterr().err


def test_a_run_that_does_not_average_saves_no_averages(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(dataclasses.replace(state(1), ema=None))
  checkpoints.wait()
  assert checkpoints.restore(target(ema_decay=0.0)).ema is None


class Failing:
  """Reading of arrays that fails so many times, as a disk or a network does."""

  def __init__(self, monkeypatch, times, error):
    self.left, self.error = times, error
    restore = ocp.CheckpointManager.restore

    def failing(manager, *args, **kwargs):
      if self.left:
        self.left -= 1
        raise self.error
      return restore(manager, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", failing)
    monkeypatch.setattr(checkpoints_module, "WAITS", (0.0, 0.0, 0.0))


ERRORS = (
  OSError(errno.EIO, "Input/output error"),
  ValueError("PERMISSION_DENIED: Error reading local file"),
  ValueError('UNAVAILABLE: Error opening "zarr" driver: connection reset'),
  MemoryError("no room"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_is_no_damage_is_tried_again_and_then_ends_the_run(tmp_path, monkeypatch, error):
  save(tmp_path, 1, 2)
  Failing(monkeypatch, 3, error)
  assert int(Checkpoints(tmp_path).restore(target()).step) == 2
  Failing(monkeypatch, 4, error)
  with pytest.raises(InputError, match=r"checkpoints/2 cannot be read \(.*nothing was changed"):
    Checkpoints(tmp_path).restore(target())
  assert Checkpoints(tmp_path).steps == [1, 2]
  assert not (tmp_path / "damaged").exists()


def test_a_step_that_a_run_replaces_while_it_is_read_is_no_damage(tmp_path, monkeypatch, capsys):
  run = save(tmp_path, 1, 2)
  tool = Checkpoints(tmp_path, read_only=True)
  read = Checkpoints._read

  def replaced_meanwhile(self, step, targets):
    if step == 2:
      for later in (3, 4):
        run.save(state(later))
        run.wait()
      assert not (tmp_path / "checkpoints" / "2").exists()
    return read(self, step, targets)

  monkeypatch.setattr(Checkpoints, "_read", replaced_meanwhile)
  jax.tree.map(np.testing.assert_array_equal, tool.restore_weights(ARCH, "ema"), state(4).ema)
  assert "damaged" not in capsys.readouterr().err


def test_a_tool_makes_nothing_in_a_workdir(tmp_path):
  assert Checkpoints(tmp_path, read_only=True).latest_step is None
  assert list(tmp_path.iterdir()) == []


def test_a_tool_is_not_warned_that_it_only_reads(tmp_path, caplog):
  from absl import logging

  logging.set_verbosity(logging.WARNING)
  for read_only in (False, True):
    Checkpoints(tmp_path, read_only=read_only)
  assert not caplog.records
  assert logging.get_verbosity() == logging.WARNING
