"""Metrics of a run: JSON lines and TensorBoard, in its workdir."""

import json
import math

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.run.journal import Journal


class Metrics:
  """Appends to `metrics.jsonl`; on a resumed run, what was written after its step is cut off.

  So it is in TensorBoard's files.

  Args:
    workdir: where the run lives.
    step: the step it goes on from; 0 for a new run.
    config: of the run, whose `wandb` may name a project that scalars also go to; or None.
  """

  def __init__(self, workdir, step, config=None):
    from asvit_jax.run.tensorboard import TensorBoard  # it takes a second to import

    path = metrics_path(workdir)
    kept = [line for line in read(workdir) if line["step"] <= step] if path.exists() else []
    self._journal = Journal(path, map(json.dumps, kept))
    self._tensorboard = TensorBoard(storage.path(workdir) / "tensorboard", step)
    self._wandb = None
    if config is not None and config.wandb:
      from asvit_jax.run.wandb import Wandb

      self._wandb = Wandb(workdir, config.wandb, config)

  def write(self, step, kind, values):
    """One line: the step, its kind ("train" or "eval") and a dictionary of numbers and lists."""
    line = {"step": step, "kind": kind} | _finite(values)
    self._journal.add(json.dumps(line, allow_nan=False))
    scalars = {}
    for name, value in values.items():
      for i, scalar in enumerate(value) if isinstance(value, list) else ((None, value),):
        if isinstance(scalar, (int, float)):
          scalars[f"{kind}/{name}" if i is None else f"{kind}/{name}/{i}"] = scalar
    self._tensorboard.add(step, scalars)
    if self._wandb is not None:
      self._wandb.add(step, scalars)

  def flush(self):
    """Returns once everything is where it belongs: in a bucket it is written in the background."""
    self._journal.flush()
    self._tensorboard.flush()

  def close(self):
    """Ends what another server is told."""
    if self._wandb is not None:
      self._wandb.close()


def _finite(value):
  """With null for what JSON has no number for: the loss of a step that was skipped."""
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in sorted(value.items())}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def metrics_path(workdir):
  """The file of JSON lines."""
  return storage.path(workdir) / "metrics.jsonl"


def read(workdir, kind=None):
  """The lines of a run, of one kind or all; a last line cut short by a kill is left out."""
  path = metrics_path(workdir)
  try:
    text = storage.read(path).decode()
  except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
    raise InputError(f"{workdir} has no metrics.jsonl: expected the workdir of train.py") from error
  lines = []
  for line in text.splitlines():
    try:
      lines.append(json.loads(line))
    except ValueError:
      break
  return [line for line in lines if kind is None or line["kind"] == kind]
