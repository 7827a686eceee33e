"""Measures whether making batches, bringing them to the devices and computing on them overlap.

python -m asvit_jax.training.benchmark

Sleeping makes each of the three the slowest in turn. If they overlap, a training step takes as long
as the longest of the three, not as long as their sum; the last line of output has the measured
times. Figures are in docs/benchmarks.md.
"""

import dataclasses
import io
import os
import tempfile
import time

import jax
import numpy as np
from absl import flags
from PIL import Image

from asvit_jax import vit
from asvit_jax.config import base
from asvit_jax.config.plan import unchecked
from asvit_jax.core import command
from asvit_jax.core.devices import AXIS
from asvit_jax.core.progress import log
from asvit_jax.data import loader
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import Network
from asvit_jax.run import metrics
from asvit_jax.training.opening import Opened
from asvit_jax.training.session import Session

# Seconds of (data, transfer, step).
_CASES = {
  "slow data": (0.2, 0.05, 0.05),
  "slow transfer": (0.05, 0.2, 0.05),
  "slow step": (0.05, 0.05, 0.2),
  "data as slow as the step": (0.2, 0.05, 0.2),
}
_BATCH = 8
_ARCH = vit.Architecture(
  width=12, heads=3, depth=2, mlp_ratio=2, image_size=32, patch_size=8, classes=2, prune_before=()
)


def measure(data, transfer, step, steps=40):
  """Times a run whose three parts are slowed down by sleeping, and each part by itself.

  Args:
    data: seconds to sleep while making a batch.
    transfer: seconds to sleep while copying it to the devices.
    step: seconds to sleep in the training step on the devices.
    steps: number of steps to time.

  Returns:
    Dictionary of measured seconds per step: `data`, `transfer` and `step`, each alone; `run`, all
    together; and `over`, the fraction by which `run` exceeds the longest of the three.
  """
  # One thread per core, at most 16, and each makes a batch.
  source = _Noise(data / _BATCH * min(16, os.cpu_count() or 1))
  plan = _plan(steps).of_images(len(source)).of_network(_ARCH, Preprocessing())
  network = Network(_ARCH, vit.initial_params(_ARCH, seed=0), variant="tiny")
  with tempfile.TemporaryDirectory() as workdir:
    opened = Opened(plan, network, source, _Noise(0.0))
    session = Session(opened, workdir, lambda: None)
    session.put = _slower(session.put, transfer)
    session.program = _lasting(session.program, step)
    alone = _alone(plan, session, network, steps)
    session.run()
    timed = next(line for line in metrics.read(workdir, "train") if line["step"] == 2 * steps)
  run = _BATCH / timed["images_per_s"]
  result = alone | {"run": run, "over": run / max(alone.values()) - 1}
  log("  ".join(f"{name} {value:.4f}" for name, value in result.items()))
  return result


def _plan(steps):
  config = base()
  config.model.variant, config.model.num_classes = "tiny", len(_Noise.classes)
  config.model.image_size, config.model.patch_size = _ARCH.image_size, _ARCH.patch_size
  config.batch_size = config.eval.batch_size = _BATCH
  config.log_every = steps  # the first interval includes compilation; the second is timed
  # A step is reported while the next one runs. Two more steps keep the end of the run, which waits
  # for the devices, out of the timed interval.
  config.total_steps = config.eval.every = config.checkpoint_every = 2 * steps + 2
  config.eval.pictures = 0
  return unchecked(config)


def _alone(plan, session, network, steps):
  batches = loader.train_batches(plan, session.source, network.preprocessing)
  for _ in range(steps // 2):  # the loader prefetched some, which would look free
    batch = next(batches)
  data = _seconds(lambda: next(batches), steps)
  batches.close()
  transfer = _seconds(lambda: jax.block_until_ready(session.put(batch)), steps)
  batch = session.put(batch)
  state = jax.tree.map(lambda x: x.copy(), session.state)

  def step():
    nonlocal state
    state, values = session.program(state, session.teacher_params, batch)
    return values

  jax.block_until_ready(step())
  start = time.perf_counter()
  for _ in range(steps):
    values = step()
  jax.block_until_ready((state, values))
  return {"data": data, "transfer": transfer, "step": (time.perf_counter() - start) / steps}


def _seconds(function, count):
  start = time.perf_counter()
  for _ in range(count):
    function()
  return (time.perf_counter() - start) / count


def _slower(function, seconds):
  def slower(*args):
    time.sleep(seconds)
    return function(*args)

  return slower


def _lasting(program, seconds):
  """Wraps a training program so that its results are ready only after the devices have slept."""

  def sleep(*numbers):
    time.sleep(seconds)
    return numbers

  def nap(*numbers):
    return jax.pure_callback(sleep, numbers, *numbers)

  nap = jax.pmap(nap, axis_name=AXIS)

  def lasting(state, teacher_params, batch):
    state, values = program(state, teacher_params, batch)
    step, skipped = nap(state.step, values["skipped"])
    return dataclasses.replace(state, step=step), values | {"skipped": skipped}

  return lasting


class _Noise:
  """A `Source` that repeats one image and sleeps before returning it."""

  classes = ("a", "b")

  def __init__(self, seconds):
    self._seconds = seconds
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    self._file = file.getvalue()

  def __len__(self):
    return 2 * _BATCH

  def __getitem__(self, index):
    time.sleep(self._seconds)
    return {"image": self._file, "label": index % 2, "file": str(index)}


def define_flags():
  """Defines the command line flags; not at import, where they would clash with other tools'."""
  flags.DEFINE_integer("steps", 40, "Steps to time of each case.", lower_bound=4)


def main(_):
  """Measures all cases; returns {case: result of `measure`}."""
  return {name: measure(*case, flags.FLAGS.steps) for name, case in _CASES.items()}


if __name__ == "__main__":
  define_flags()
  command.run(main)
