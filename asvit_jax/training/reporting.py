"""What a run says and writes; of several hosts, the first one does."""

from asvit_jax.core import hosts, progress
from asvit_jax.losses import LOSSES
from asvit_jax.run.metrics import Metrics


class Reporter:
  """Writes metrics.

  Args:
    workdir: where the run lives.
    step: the step it goes on from; 0 for a new run.
    config: see `Metrics`.
    check_lock: raises InputError where another run may write to the workdir.
  """

  def __init__(self, workdir, step, config, check_lock):
    self._check_lock = check_lock
    self._metrics = Metrics(workdir, step, config) if hosts.is_first() else None

  def write(self, step, kind, values):
    """Writes metrics, see `Metrics.write`; writes nothing once the lock is lost."""
    self._check_lock()
    if self._metrics is not None:
      self._metrics.write(step, kind, values)

  def flush(self):
    """Flushes the metrics, see `Metrics.flush`."""
    if self._metrics is not None:
      self._metrics.flush()

  def close(self):
    """Closes the metrics, see `Metrics.close`."""
    if self._metrics is not None:
      self._metrics.close()


def log(message):
  """A line of progress, on stderr."""
  if hosts.is_first():
    progress.log(message)


def describe_step(step, steps, rate, values, target_gmacs):
  """A line on a training step.

  Args:
    step: its number.
    steps: of the whole run.
    rate: steps a second.
    values: its metrics.
    target_gmacs: of the budget; None for a dense network.
  """
  terms = " + ".join(f"{name} {values[name]:.4f}" for name in LOSSES if name in values)
  line = f"step {step}/{steps}  loss {values['loss']:.4f} ({terms})"
  if target_gmacs is not None:
    thresholds = " ".join(f"{t:.3g}" for t in values["thresholds"])
    kept = " ".join(f"{k:.1f}" for k in values["kept"])
    line += f"  gmacs {values['gmacs']:.4f}/{target_gmacs:.4f}  kept {kept}"
    line += f"  thresholds {thresholds}"
  eta = progress.duration((steps - step) / rate)
  return line + f"  {values['images_per_s']:.0f} images/s  eta {eta}"


def describe_evaluation(result):
  """What `evaluation.accuracy.evaluate` returned, in a line."""
  kept = " ".join(f"{stage['mean']:.1f}" for stage in result["kept"])
  return (
    f"top-1 {result['top1']:.2f}  top-5 {result['top5']:.2f}  gmacs {result['gmacs']:.4f} "
    f"({result['share']:.3f} of dense)" + (f"  kept {kept}" if kept else "")
  )
