"""The metrics of a run: JSON lines and TensorBoard files in its workdir."""

import contextlib
import json
import math
import sys
import time

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log, log_once
from asvit_jax.run.journal import Journal

_MOST_BYTES = 1 << 30  # of the file; a line has about 500
_MOST_SAID = 5  # damaged lines that a warning lists
_NUMBER = schema.number(-sys.float_info.max, sys.float_info.max)
_SHOWN = schema.either(_NUMBER, schema.NULL)  # null: see `_finite`
_STAGES = schema.array(schema.either(_SHOWN, schema.table({"mean": _NUMBER}, ("mean",))), most=1024)
_FIELDS = {"step": schema.integer(), "kind": schema.text(64)}
_FIELDS |= dict.fromkeys(("loss", "lr", "gmacs"), _SHOWN)
_FIELDS |= dict.fromkeys(("kept", "thresholds"), _STAGES)
_LINE = schema.table(_FIELDS, required=("step", "kind"))
_EVALUATION = schema.table(dict.fromkeys(("top1", "share"), _NUMBER), required=("top1", "share"))


class Metrics:
  """Writes `metrics.jsonl` and TensorBoard's files.

  A resumed run first removes the metrics after its step. If `metrics.jsonl` has damaged lines, or
  the run starts over because it has no checkpoint, a copy of the file is kept.

  Args:
    workdir: directory of the run.
    step: the step that the run resumes from; 0 for a new run.
    plan: `Plan` of the run, whose `wandb` may name a project to log to as well; or None.
  """

  def __init__(self, workdir, step, plan=None):
    from asvit_jax.run.tensorboard import TensorBoard  # it takes a second to import

    path = metrics_path(workdir)
    lines, damaged = _parse(workdir) if path.exists() else ([], ())
    if damaged:
      log(f"a copy of {path} with the damaged lines is {_copy(path, 'damaged')}")
    elif not step and lines:
      log(
        f"WARNING: {workdir} has metrics up to step {lines[-1]['step']} and no checkpoint: the run "
        f"starts over; a copy of the metrics is {_copy(path, 'before')}"
      )
    kept = [line for line in lines if line["step"] <= step]
    self._journal = Journal(path, map(json.dumps, kept))
    self._tensorboard = TensorBoard(storage.path(workdir) / "tensorboard", step)
    self._wandb = None
    if plan is not None and plan.wandb:
      from asvit_jax.run.wandb import Wandb

      self._wandb = Wandb(workdir, plan.wandb, plan.given)

  def write(self, step, kind, values):
    """Writes one line.

    Args:
      step: number of the step.
      kind: "train", "eval" or "eval_raw".
      values: {name: number or list of numbers}.
    """
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
    """Waits until everything is written, as writing to a bucket happens in the background."""
    self._journal.flush()
    self._tensorboard.flush()

  def close(self):
    """Ends the run at Weights & Biases, if it logs there."""
    if self._wandb is not None:
      self._wandb.close()


def _copy(path, kind):
  """Copies a file to the same directory; returns the path of the copy."""
  copy = path.with_name(f"{path.name}.{kind}_{time.time_ns()}")
  storage.write(copy, storage.read(path))
  return copy


def _finite(value):
  """Replaces infinities and NaN, such as the loss of a skipped step, by None: JSON has neither."""
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in sorted(value.items())}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def metrics_path(workdir):
  """The path of a run's `metrics.jsonl`."""
  return storage.path(workdir) / "metrics.jsonl"


def read(workdir, kind=None):
  """The lines of a run's metrics, a list of dictionaries.

  A last line cut short by a kill is left out. Other damaged lines are left out with a warning.

  Args:
    workdir: directory of the run.
    kind: "train", "eval" or "eval_raw"; None for all lines.

  Raises:
    InputError: there are no metrics, or they cannot be read.
  """
  lines, _ = _parse(workdir)
  return [line for line in lines if kind is None or line["kind"] == kind]


def _parse(workdir):
  """The readable lines, and the numbers of the damaged ones."""
  path = metrics_path(workdir)
  try:
    content = storage.read(path, _MOST_BYTES)
  except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
    raise InputError(f"{workdir} has no metrics.jsonl: expected the workdir of train.py") from error
  except OSError as error:
    raise InputError(f"{path} cannot be read ({error.strerror or error}): check it") from error
  *whole, rest = content.split(b"\n")
  lines, damaged = [], []
  for number, line in enumerate(whole, 1):
    try:
      lines.append(_line(line))
    except InputError as error:
      damaged.append((number, error))
  with contextlib.suppress(InputError):  # empty, or cut short by a kill
    lines.append(_line(rest))  # a complete line without a newline, as other programs write it
  if damaged:
    numbers = ", ".join(str(number) for number, _ in damaged[:_MOST_SAID])
    more = ", …" if len(damaged) > _MOST_SAID else ""
    log_once(
      f"{path} is damaged",
      f"WARNING: {path} is damaged; left out: line {numbers}{more} ({damaged[0][1]})",
    )
  return lines, [number for number, _ in damaged]


def _line(content):
  """Parses and checks a line; raises InputError."""
  line = schema.loads(content, _LINE, "it", "the others are read")
  if line["kind"].startswith("eval"):
    schema.check(line, _EVALUATION, "it", "the others are read")
  return line
