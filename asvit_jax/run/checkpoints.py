"""Checkpoints of a run, by Orbax.

A step is saved as items, so that weights can be read without the optimizer: `params`, `ema` (where
the run averages), `optimizer`, and the checksums of them all.
"""

import contextlib
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from asvit_jax import vit
from asvit_jax.core import hosts, leaves
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.run.state import TrainState


class Checkpoints:
  """The saved steps of a workdir: the latest two and the best evaluated one are kept.

  Saving is asynchronous and atomic. A checksum over every array is saved with it and verified when
  it is read; a step that is damaged is passed over, loudly, for the one before.
  """

  def __init__(self, workdir):
    self.directory = (pathlib.Path(workdir) / "checkpoints").absolute()
    keep = policies.AnyPreservationPolicy(
      [
        policies.LatestN(2),
        policies.BestN(
          get_metric_fn=lambda metrics: metrics["top1"], n=1, keep_checkpoints_without_metrics=False
        ),
      ]
    )
    options = ocp.CheckpointManagerOptions(preservation_policy=keep)
    self._manager = ocp.CheckpointManager(self.directory, options=options)

  @property
  def latest_step(self):
    """The last complete step, or None."""
    return self._manager.latest_step()

  @property
  def steps(self):
    """The complete steps, in order."""
    return sorted(self._manager.all_steps())

  def save(self, state, top1=None):
    """Starts writing a `TrainState` of host or single-device arrays; `top1` ranks it, if known.

    Raises:
      InputError: this or the last one cannot be written.
    """
    items = _items(state)
    items = {k: jax.tree.map(np.asarray, v) for k, v in items.items() if v is not None}
    checksums = {name: leaves.checksums(item) for name, item in items.items()}
    with self._writing():
      self._manager.save(
        int(state.step),
        args=ocp.args.Composite(
          **_each(ocp.args.StandardSave, items), checksums=ocp.args.JsonSave(checksums)
        ),
        metrics=None if top1 is None else {"top1": top1},
        force=True,
      )

  def restore(self, target):
    """The latest good step, in the structure and shapes of `target`, a `TrainState`.

    Damaged steps after it are moved to `damaged/`, out of the way of the run that goes on.
    """
    items = {k: v for k, v in _items(target).items() if v is not None}
    restored = self._restore(items)
    optimizer = restored["optimizer"]
    self._set_aside(int(optimizer["step"]))
    return TrainState(
      optimizer["step"],
      restored["params"],
      restored.get("ema"),
      optimizer["state"],
      optimizer["skipped"],
    )

  def restore_weights(self, arch, name, budgets=0):
    """The `params` or `ema` of the latest good step; arguments as for `vit.specs`."""
    return self._restore({name: vit.specs(arch, budgets)})[name]

  def wait(self):
    """Blocks until everything saved is on disk; raises as `save` does."""
    with self._writing():
      self._manager.wait_until_finished()

  def check(self):
    """Raises as `save` does where the last one has failed meanwhile."""
    with self._writing():
      self._manager.check_for_errors()

  @contextlib.contextmanager
  def _writing(self):
    try:
      yield
    # What Orbax and its storage raise for a full or a lost disk has no common type.
    except Exception as error:
      self._manager.reload()  # it counts a step as there when its saving begins
      good = "no step" if self.latest_step is None else f"step {self.latest_step}"
      raise InputError(
        f"a checkpoint cannot be written in {self.directory} ({type(error).__name__}: "
        f"{str(error)[:300]}); {good} is there and good: make room or mend the disk, and run the "
        "same command to go on"
      ) from error

  def _set_aside(self, good):
    later = [step for step in self.steps if step > good]
    if later and hosts.is_first():
      damaged = self.directory.parent / "damaged"
      damaged.mkdir(exist_ok=True)
      for step in later:
        (self.directory / str(step)).rename(damaged / f"{step}_{time.time_ns()}")
    if later:
      hosts.wait_for_all("damaged checkpoints are set aside")
      self._manager.reload()

  def _restore(self, items):
    targets = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), items)
    problems = []
    for step in reversed(self.steps):
      requests = _each(ocp.args.StandardRestore, targets)
      verified = (self.directory / str(step) / "checksums").is_dir()
      if verified:
        requests["checksums"] = ocp.args.JsonRestore()
      else:
        log(f"WARNING: checkpoint {self.directory / str(step)} has no checksums to verify")
      problem = None
      try:
        restored = self._manager.restore(step, args=ocp.args.Composite(**requests))
        damaged = [
          f"{name}.{leaf}"
          for name in items
          for leaf, value in leaves.checksums(restored[name]).items()
          if verified and restored["checksums"][name][leaf] != value
        ]
        if damaged:
          problem = f"checksums differ: {', '.join(damaged[:3])}"
      # What Orbax and its storage raise for a damaged file has no common type.
      except Exception as error:
        problem = f"{type(error).__name__}, {str(error)[:200]}"
      if hosts.all_true(problem is None):
        return {name: jax.tree.map(jnp.asarray, restored[name]) for name in items}
      problems.append(f"step {step}: {problem or 'another host cannot read it'}")
      log(f"WARNING: checkpoint {self.directory / str(step)} is damaged ({problems[-1]})")
    raise InputError(
      f"no checkpoint in {self.directory} can be restored ({'; '.join(problems)}): it is of "
      "another network or damaged; use another --workdir or bring back a copy"
    )


def _items(state):
  optimizer = {"step": state.step, "state": state.opt_state, "skipped": state.skipped}
  return {"params": state.params, "ema": state.ema, "optimizer": optimizer}


def _each(function, items):
  return {name: function(item) for name, item in items.items()}
