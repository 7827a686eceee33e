"""Checkpoints of a run, by Orbax.

A step is saved as items, so that weights can be read without the optimizer: `params`, `ema` (where
the run averages), `optimizer`, and the checksums of them all.
"""

import contextlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from asvit_jax import vit
from asvit_jax.core import exchange, failures, hosts, leaves, schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.run import damage, keeping, noise
from asvit_jax.run.plain_path import PlainPath
from asvit_jax.run.state import TrainState

# Seconds between tries to read a step which a disk or a network does not give; and what part of
# them where nothing will pass that does not within moments.
WAITS = (1.0, 3.0, 10.0)
_MOMENTS = 0.1
_MOST_BYTES = 1 << 30  # of the checksums
_CHECKSUMS = schema.table(others=schema.table(others=schema.integer(most=2**32 - 1)))


@contextlib.contextmanager
def _quiet():
  """Without Orbax's warnings that what is to be read only is read only."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(before)


class Checkpoints:
  """The saved steps of a workdir: the latest two and the best evaluated one are kept.

  The best is that of the averaged and that of the raw weights, by `ranking.rank`, which may be two.

  Saving is asynchronous and atomic. A checksum over every array is saved with it and verified when
  it is read; a step that is damaged is passed over, loudly, for the one before. Only what `damage`
  says is damage, and says again: any other error is met by trying again, and then ends the run,
  which changes nothing.

  Args:
    workdir: of the run.
    read_only: for tools, which may read what a run is writing: nothing is made or removed.
  """

  def __init__(self, workdir, read_only=False):
    directory = storage.path(workdir) / "checkpoints"
    self.directory = directory if storage.in_bucket(directory) else directory.absolute()
    self.failed = False  # whether a step could not be written
    self._plain = PlainPath(self.directory)
    if not read_only and not storage.in_bucket(directory):
      self.directory.mkdir(parents=True, exist_ok=True)  # what a link leads to must be there
    noise.silence()
    with _quiet() if read_only else contextlib.nullcontext():
      options = ocp.CheckpointManagerOptions(
        preservation_policy=keeping.policy(), read_only=read_only, create=not read_only
      )
      self._manager = ocp.CheckpointManager(self._plain.path, options=options)

  @property
  def latest_step(self):
    """The last complete step, or None."""
    return self._manager.latest_step()

  @property
  def steps(self):
    """The complete steps, in order."""
    return sorted(self._manager.all_steps())

  def save(self, state, ranks=None):
    """Starts writing a `TrainState`.

    Args:
      state: of host or single-device arrays.
      ranks: {weights of `ranking.NAMES`: rank} where it was evaluated.

    Raises:
      InputError: this or the last one cannot be written.
    """
    items = {k: jax.tree.map(np.asarray, v) for k, v in _items(state).items()}
    checksums = {name: leaves.checksums(item) for name, item in items.items()}
    with self._writing():
      self._plain.mend()
      self._manager.save(
        int(state.step),
        args=ocp.args.Composite(
          **_each(ocp.args.StandardSave, items), checksums=ocp.args.JsonSave(checksums)
        ),
        metrics=None if ranks is None else {"ranks": ranks},
        force=True,
      )

  def restore(self, target):
    """The latest good step, in the structure and shapes of `target`, a `TrainState`.

    Damaged steps after it are moved to `damaged/`, out of the way of the run that goes on.
    """
    restored = self._restore(_items(target))
    optimizer = restored["optimizer"]
    self._set_aside(int(optimizer["step"]))
    return TrainState(
      optimizer["step"],
      restored["params"],
      restored.get("ema"),
      optimizer["state"],
      optimizer["skipped"],
    )

  def restore_weights(self, arch, name, budgets=0, step=None):
    """The `params` or `ema` of a step, or of the latest good one; others as for `vit.specs`."""
    return self._restore({name: vit.specs(arch, budgets)}, step)[name]

  def prove(self, state):
    """Reads back the `TrainState` that was saved last, as another process will, and compares it.

    One item at a time is in memory besides it.

    Raises:
      InputError: it cannot be written, or not be read.
    """
    self.wait()
    step, reader = int(state.step), Checkpoints(self.directory.parent, read_only=True)
    for name, item in _items(state).items():
      problem = "it is not there"
      if step in reader.steps:
        target = {name: _zeros(item)}
        _, error = reader._read(step, target)
        problems = exchange.gather(error and reader._describe(error, step, target))
        problem = next((p["text"] for p in problems if p is not None), None)
      if problem is not None:
        raise InputError(
          f"the first checkpoint of the run, {self.directory / str(step)}, was written and cannot "
          f"be read ({name}: {problem}): nothing that is trained here could be used; mend the "
          "disk, or use another --workdir"
        )

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
      self.failed = True
      noise.silence_leftovers()
      with contextlib.suppress(Exception):  # the disk is not there at all
        self._manager.reload()  # it counts a step as there when its saving begins
      step = self.latest_step
      there = "no checkpoint is there yet" if step is None else f"step {step} is there and good"
      advice = failures.advice(damage.number_of_system(error), "make room or mend the disk")
      raise InputError(
        f"a checkpoint cannot be written in {self.directory} ({self._cause(error)}); {there}: "
        f"{advice}, and run the same command to go on"
      ) from error

  def _cause(self, error):
    """What an error of writing says, with what the operating system says of it in front."""
    text = " ".join(self._plain.named(str(error)).split())
    system = damage.of_system(error)
    said = "" if system is None or system in text[:200] else f"{system}: "
    return f"{said}{type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''}"

  def _set_aside(self, good):
    later = [step for step in self.steps if step > good]
    if later and hosts.is_first():
      for step in later:
        place = self.directory.parent / "damaged" / f"{step}_{time.time_ns()}"
        storage.move(self.directory / str(step), place)
    if later:
      hosts.wait_for_all("damaged checkpoints are set aside")
      self._manager.reload()

  def _restore(self, items, only=None):
    """The items of the latest step that is not damaged, as the first host finds it.

    With `only`, of that step and no other.
    """
    targets = _zeros(items)
    damaged = {}
    while left := [step for step in self._listed(only) if step not in damaged]:
      restored, problem = self._read_patiently(left[-1], targets, damaged, only)
      if restored is not None:
        return {name: jax.tree.map(jnp.asarray, restored[name]) for name in items}
      if problem is not None:
        damaged[left[-1]] = f"step {left[-1]}: {problem}"
        place = self.directory / str(left[-1])
        log(f"WARNING: checkpoint {place} is damaged ({damaged[left[-1]]})")
    why = "; ".join(damaged.values()) or "it is gone"
    raise InputError(
      f"no checkpoint in {self.directory} can be restored ({why}): "
      "bring back a copy, or use another --workdir"
    )

  def _listed(self, only=None):
    """The steps that are there now, in order, as the first host sees them; of `only` that one."""
    self._manager.reload()
    return [step for step in exchange.gather(self.steps)[0] if only in (None, step)]

  def _read_patiently(self, step, targets, damaged, only):
    """(items, None), (None, what is damaged), or (None, None) where a newer step took its place.

    A run removes a step only after a newer one is complete, so what was lost to that is told from
    damage by listing the steps again.
    """
    before = False  # whether it was damage
    for wait in (*WAITS, None):
      restored, error = self._read(step, targets)
      found = exchange.gather(error and self._describe(error, step, targets))
      problems = [p for p in found if p is not None]
      if not problems:
        return restored, None
      if [s for s in self._listed(only) if s not in damaged][-1:] != [step]:
        return None, None
      problem = problems[0]["text"]
      damaged_now = all(p["damage"] for p in problems)
      if damaged_now and (before or any(p["sure"] for p in problems)):
        return None, problem
      before = damaged_now
      if wait is None or not all(p["may_pass"] for p in problems):
        break
      if not damaged_now:
        place = self.directory / str(step)
        log(f"WARNING: checkpoint {place} cannot be read ({problem}): once more")
      time.sleep(wait * _MOMENTS if all(p["soon"] for p in problems) else wait)
    raise InputError(
      f"checkpoint {self.directory / str(step)} cannot be read ({problem}): it is of another "
      "network, or the storage fails; nothing was changed: see to that and try again"
    ) from error

  def _read(self, step, targets):
    """(items, None) or (None, the error)."""
    requests = _each(ocp.args.StandardRestore, targets)
    try:
      verified = (self.directory / str(step) / "checksums").is_dir()
      if verified:
        requests["checksums"] = ocp.args.JsonRestore()
      else:
        log(f"WARNING: checkpoint {self.directory / str(step)} has no checksums to verify")
      for name in targets:
        if not (self.directory / str(step) / name / "_METADATA").exists():
          raise FileNotFoundError(f"{name} is not all there: it has no _METADATA")
      self._plain.mend()
      restored = self._manager.restore(step, args=ocp.args.Composite(**requests))
      found = {name: restored[name] for name in targets}
      if verified:
        damage.check(found, restored["checksums"])
      damage.check_shapes(found, targets)
    # What Orbax and its storage raise has no common type.
    except Exception as error:
      return None, error
    return restored, None

  def _describe(self, error, step, targets):
    """Describes what is damaged in a step, see `damage.describe`."""
    place = self.directory / str(step)
    try:
      content = storage.read(place / "checksums" / "metadata", _MOST_BYTES)
      checksums = schema.loads(content, _CHECKSUMS, "the checksums", most_bytes=_MOST_BYTES)
    except (OSError, InputError):
      checksums = None
    found = damage.describe(error, place, targets, checksums)
    return found | {"text": self._plain.named(found["text"])}


def _items(state):
  """{name: tree} of what is saved of a `TrainState`; `ema` only where the run averages."""
  optimizer = {"step": state.step, "state": state.opt_state, "skipped": state.skipped}
  items = {"params": state.params, "ema": state.ema, "optimizer": optimizer}
  return {name: item for name, item in items.items() if item is not None}


def _zeros(tree):
  """A tree of arrays of zeros, of the shapes and types of another."""
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


def _each(function, items):
  return {name: function(item) for name, item in items.items()}
