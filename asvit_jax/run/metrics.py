"""Metrics of a run: JSON lines and TensorBoard, in its workdir."""

import json
import math
import pathlib
import sys
import types

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError


class Metrics:
  """Appends to `metrics.jsonl`; on a resumed run, what was written after its step is cut off.

  TensorBoard's files are left as they are: it shows steps that were run twice by their last values.

  Args:
    workdir: where the run lives.
    step: the step it goes on from; 0 for a new run.
  """

  def __init__(self, workdir, step):
    self.path = metrics_path(workdir)
    kept = [line for line in read(workdir) if line["step"] <= step] if self.path.exists() else []
    storage.write(self.path, "".join(json.dumps(line) + "\n" for line in kept))
    self._tensorboard = _tensorboard_writer(pathlib.Path(workdir) / "tensorboard")

  def write(self, step, kind, values):
    """One line: the step, its kind ("train" or "eval") and a dictionary of numbers and lists."""
    with self.path.open("a") as file:
      line = {"step": step, "kind": kind} | _finite(values)
      file.write(json.dumps(line, allow_nan=False) + "\n")
    for name, value in values.items():
      for i, scalar in enumerate(value) if isinstance(value, list) else ((None, value),):
        if isinstance(scalar, (int, float)):
          tag = f"{kind}/{name}" if i is None else f"{kind}/{name}/{i}"
          self._tensorboard.add_scalar(tag, scalar, step)
    self._tensorboard.flush()


def _finite(value):
  """With null for what JSON has no number for: the loss of a step that was skipped."""
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in sorted(value.items())}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard_writer(directory):
  # TensorBoard takes this module's presence for "without TensorFlow"; otherwise it would load it,
  # where it is installed, for seconds and a gigabyte that nobody uses.
  sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
  from tensorboard import summary

  return summary.Writer(str(directory))


def metrics_path(workdir):
  """The file of JSON lines."""
  return pathlib.Path(workdir) / "metrics.jsonl"


def read(workdir, kind=None):
  """The lines of a run, of one kind or all; a last line cut short by a kill is left out."""
  path = metrics_path(workdir)
  if not path.is_file():
    raise InputError(f"{workdir} has no metrics.jsonl: expected the workdir of train.py")
  lines = []
  for text in path.read_text().splitlines():
    try:
      lines.append(json.loads(text))
    except ValueError:
      break
  return [line for line in lines if kind is None or line["kind"] == kind]
