"""Checkpoints of a run, by Orbax, and weights to start from: published ones or another run's.

A step is saved as three items, so that weights can be read without the optimizer: `params`, `ema`
(where the run averages) and `optimizer`.
"""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from asvit_jax import config as config_lib
from asvit_jax import vit, weights
from asvit_jax.errors import InputError
from asvit_jax.training.step import TrainState


class Checkpoints:
  """The saved steps of a workdir; saving is asynchronous and atomic, the latest two are kept."""

  def __init__(self, workdir):
    self.directory = (pathlib.Path(workdir) / "checkpoints").absolute()
    self._manager = ocp.CheckpointManager(
      self.directory, options=ocp.CheckpointManagerOptions(max_to_keep=2)
    )

  @property
  def latest_step(self):
    """The last complete step, or None."""
    return self._manager.latest_step()

  def save(self, state):
    """Starts writing a `TrainState` of host or single-device arrays."""
    items = {
      "params": state.params,
      "ema": state.ema,
      "optimizer": {"step": state.step, "state": state.opt_state},
    }
    items = {k: jax.tree.map(np.asarray, v) for k, v in items.items() if v is not None}
    self._manager.save(
      int(state.step), args=ocp.args.Composite(**_each(ocp.args.StandardSave, items))
    )

  def restore(self, target):
    """The latest step, in the structure and shapes of `target`, a `TrainState`."""
    items = {
      "params": target.params,
      "ema": target.ema,
      "optimizer": {"step": target.step, "state": target.opt_state},
    }
    restored = self._restore({k: v for k, v in items.items() if v is not None})
    optimizer = restored["optimizer"]
    return TrainState(
      optimizer["step"], restored["params"], restored.get("ema"), optimizer["state"]
    )

  def restore_weights(self, arch, name):
    """The `params` or `ema` of the latest step."""
    _, target = vit.abstract(arch)
    return self._restore({name: target})[name]

  def wait(self):
    """Blocks until everything saved is on disk."""
    self._manager.wait_until_finished()

  def _restore(self, items):
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=single), items)
    try:
      return dict(
        self._manager.restore(
          self.latest_step, args=ocp.args.Composite(**_each(ocp.args.StandardRestore, targets))
        )
      )
    except (ValueError, KeyError, OSError, TypeError) as error:
      raise InputError(
        f"checkpoint {self.directory / str(self.latest_step)} cannot be restored "
        f"({type(error).__name__}: {str(error)[:300]}): if it is damaged, remove that directory "
        "and run again to go on from the one before"
      ) from error


def load_run(workdir):
  """The weights a run arrived at: averaged where it averages.

  Args:
    workdir: of `train.py`.

  Returns:
    (config, params); params hold thresholds where the run pruned.

  Raises:
    InputError: not a workdir, or no step saved in it yet.
  """
  config = config_lib.load(workdir)
  checkpoints = Checkpoints(workdir)
  if checkpoints.latest_step is None:
    raise InputError(f"{workdir} has no checkpoint yet: let train.py save one first")
  name = "ema" if config.ema_decay else "params"
  return config, checkpoints.restore_weights(config_lib.architecture(config), name)


def load_weights(arch, source, resize=False, new_head=False):
  """Weights for `arch` from a file, the hub or a workdir, strict.

  Args:
    arch: an `Architecture`.
    source: what `weights.load` reads, or the workdir of a run.
    resize: as in `weights.load`.
    new_head: as in `weights.load`.

  Returns:
    Parameters; they hold thresholds where the source has them.

  Raises:
    InputError: nothing usable there, or weights of another network.
  """
  if not pathlib.Path(source).is_dir():
    return weights.load(arch, source, resize, new_head)
  config, params = load_run(source)
  arch = arch if config.budget is not None else arch.dense
  tensors = weights.adapt(arch, weights.to_timm(params), resize, new_head)
  return weights.from_timm(arch, tensors, f"workdir {source}")


def _each(function, items):
  return {name: function(item) for name, item in items.items()}
