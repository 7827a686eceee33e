"""Checkpoints of a run, written by Orbax.

A step is saved as several items, so that weights can be read without the optimizer's state:
`params`, `ema` (if the run averages weights), `optimizer`, and the checksums of all of them.
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

# Seconds between attempts to read a step from a disk or a network that fails. Errors that either
# pass within moments or never wait only the fraction `_MOMENTS` of them.
WAITS = (1.0, 3.0, 10.0)
_MOMENTS = 0.1
_MOST_BYTES = 1 << 30  # of the checksums' file
_CHECKSUMS = schema.table(others=schema.table(others=schema.integer(most=2**32 - 1)))


@contextlib.contextmanager
def _quiet():
  """Silences Orbax's warnings that a read-only manager cannot write."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(before)


class Checkpoints:
  """The saved steps of a workdir: the latest two, and the best evaluated ones.

  The best averaged and the best raw weights, by `ranking.rank`, are kept; these may be two steps.

  Saving is asynchronous and atomic. A checksum of every array is saved, and verified when the array
  is read. A damaged step is skipped, with a warning, for the one before. A step counts as damaged
  only if `damage` says so twice; after any other error, reading is tried again, and finally the run
  ends without changing anything.

  Args:
    workdir: directory of the run.
    read_only: creates and removes nothing; for tools, which may read while a run writes.
  """

  def __init__(self, workdir, read_only=False):
    directory = storage.path(workdir) / "checkpoints"
    self.directory = directory if storage.in_bucket(directory) else directory.absolute()
    self.failed = False  # whether writing a step failed
    self._plain = PlainPath(self.directory)
    if not read_only and not storage.in_bucket(directory):
      self.directory.mkdir(parents=True, exist_ok=True)  # `PlainPath` may link to it
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
      state: a `TrainState` of host or single-device arrays.
      ranks: {`ranking.EMA` or `ranking.RAW`: rank} if the step was evaluated, else None.

    Raises:
      InputError: this checkpoint, or the previous one, cannot be written.
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
    """The `TrainState` of the latest step that is not damaged.

    Damaged steps after it are moved to `damaged/`, so that the run can save these steps again.

    Args:
      target: a `TrainState` of the structure and shapes to read.

    Raises:
      InputError: every step is damaged, or reading fails.
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
    """The parameters of a step.

    Args:
      arch: `Architecture` of the network.
      name: "params" or "ema".
      budgets: number of rows of thresholds, as for `vit.specs`.
      step: number of the step; by default the latest one that is not damaged.

    Raises:
      InputError: the step is damaged, or reading fails.
    """
    return self._restore({name: vit.specs(arch, budgets)}, step)[name]

  def prove(self, state):
    """Reads back the `TrainState` that was saved last, and verifies its checksums.

    It is read as another process would read it. Memory holds one more item at a time.

    Raises:
      InputError: the checkpoint cannot be written, or cannot be read.
    """
    self.wait()
    step, reader = int(state.step), Checkpoints(self.directory.parent, read_only=True)
    for name, item in _items(state).items():
      problem = "it is missing"
      if step in reader.steps:
        target = {name: _zeros(item)}
        _, error = reader._read(step, target)
        problems = exchange.gather(error and reader._describe(error, step, target))
        problem = next((p["text"] for p in problems if p is not None), None)
      if problem is not None:
        raise InputError(
          f"the first checkpoint of the run, {self.directory / str(step)}, was written but cannot "
          f"be read ({name}: {problem}), so the trained weights would be lost: mend the disk, or "
          "use another --workdir"
        )

  def wait(self):
    """Waits until everything saved is on disk; raises InputError if that failed."""
    with self._writing():
      self._manager.wait_until_finished()

  def check(self):
    """Raises InputError if the checkpoint that is being written has failed."""
    with self._writing():
      self._manager.check_for_errors()

  @contextlib.contextmanager
  def _writing(self):
    try:
      yield
    # Orbax and its storage raise unrelated types for a full or a lost disk.
    except Exception as error:
      self.failed = True
      noise.silence_leftovers()
      with contextlib.suppress(Exception):  # the disk may be gone
        self._manager.reload()  # Orbax lists a step as soon as its saving begins
      step = self.latest_step
      there = "there is no checkpoint yet" if step is None else f"step {step} is saved and good"
      advice = failures.advice(damage.number_of_system(error), "make room or mend the disk")
      raise InputError(
        f"a checkpoint cannot be written in {self.directory} ({self._cause(error)}); {there}: "
        f"{advice}, and run the same command to resume"
      ) from error

  def _cause(self, error):
    """The text of a write error, after that of the operating system if there is one."""
    text = " ".join(self._plain.named(str(error)).split())
    system = damage.of_system(error)
    said = "" if system is None or system in text[:200] else f"{system}: "
    return f"{said}{type(error).__name__}: {text[:300]}{'…' if len(text) > 300 else ''}"

  def _set_aside(self, good):
    """Moves the steps after `good`, which are damaged, to `damaged/`."""
    later = [step for step in self.steps if step > good]
    if later and hosts.is_first():
      for step in later:
        place = self.directory.parent / "damaged" / f"{step}_{time.time_ns()}"
        storage.move(self.directory / str(step), place)
    if later:
      hosts.wait_for_all("damaged checkpoints are set aside")
      self._manager.reload()

  def _restore(self, items, only=None):
    """The items of the latest step that is not damaged, of those that the first host lists.

    With `only`, the items of that step and no other.
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
    why = "; ".join(damaged.values()) or "it was removed"
    raise InputError(
      f"no checkpoint in {self.directory} can be restored ({why}): "
      "restore a copy, or use another --workdir"
    )

  def _listed(self, only=None):
    """The current steps, in order, as the first host lists them; with `only`, at most that one."""
    self._manager.reload()
    return [step for step in exchange.gather(self.steps)[0] if only in (None, step)]

  def _read_patiently(self, step, targets, damaged, only):
    """Reads a step, with several attempts.

    A run removes a step only after a newer one is complete, so listing the steps again tells a
    removed step from a damaged one.

    Returns:
      (items, None); (None, text) if the step is damaged; (None, None) if a newer step has replaced
      it.

    Raises:
      InputError: reading fails for another reason.
    """
    before = False  # whether the previous attempt found damage
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
        log(f"WARNING: checkpoint {place} cannot be read ({problem}): trying again")
      time.sleep(wait * _MOMENTS if all(p["soon"] for p in problems) else wait)
    raise InputError(
      f"checkpoint {self.directory / str(step)} cannot be read ({problem}): it is of another "
      "network, or the storage fails; nothing was changed: fix that and try again"
    ) from error

  def _read(self, step, targets):
    """Reads a step once: (items, None), or (None, the error)."""
    requests = _each(ocp.args.StandardRestore, targets)
    try:
      verified = (self.directory / str(step) / "checksums").is_dir()
      if verified:
        requests["checksums"] = ocp.args.JsonRestore()
      else:
        log(f"WARNING: checkpoint {self.directory / str(step)} has no checksums to verify")
      for name in targets:
        if not (self.directory / str(step) / name / "_METADATA").exists():
          raise FileNotFoundError(f"{name} is incomplete: it has no _METADATA")
      self._plain.mend()
      restored = self._manager.restore(step, args=ocp.args.Composite(**requests))
      found = {name: restored[name] for name in targets}
      if verified:
        damage.check(found, restored["checksums"])
      damage.check_shapes(found, targets)
    # Orbax and its storage raise unrelated types.
    except Exception as error:
      return None, error
    return restored, None

  def _describe(self, error, step, targets):
    """Describes an error of reading a step, see `damage.describe`."""
    place = self.directory / str(step)
    try:
      content = storage.read(place / "checksums" / "metadata", _MOST_BYTES)
      checksums = schema.loads(content, _CHECKSUMS, "the checksums", most_bytes=_MOST_BYTES)
    except (OSError, InputError):
      checksums = None
    found = damage.describe(error, place, targets, checksums)
    return found | {"text": self._plain.named(found["text"])}


def _items(state):
  """The items of a checkpoint, {name: tree}; `ema` only if the run averages weights."""
  optimizer = {"step": state.step, "state": state.opt_state, "skipped": state.skipped}
  items = {"params": state.params, "ema": state.ema, "optimizer": optimizer}
  return {name: item for name, item in items.items() if item is not None}


def _zeros(tree):
  """A tree of zeros with the shapes and types of another."""
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


def _each(function, items):
  return {name: function(item) for name, item in items.items()}
