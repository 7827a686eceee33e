"""Measures how much of a run's data, transfers and steps happens at the same time.

Data, transfers and steps are made to last, by sleeping, for as long as is asked; what a step then
takes should be the longest of the three and not their sum.
"""

import dataclasses
import io
import os
import tempfile
import time

import jax
import numpy as np
from PIL import Image

from asvit_jax import vit
from asvit_jax.config import base
from asvit_jax.core.devices import AXIS
from asvit_jax.core.progress import log
from asvit_jax.data import loader
from asvit_jax.network import Network
from asvit_jax.run import metrics
from asvit_jax.training.session import Session
from asvit_jax.training.setup import Setup

_BATCH = 8
_ARCH = vit.Architecture(
  width=12, heads=3, depth=2, mlp_ratio=2, image_size=32, patch_size=8, classes=2, prune_before=()
)


def measure(data, transfer, step, steps=40):
  """Times a run whose parts last for so many seconds a step, and each part by itself.

  Args:
    data: seconds that a batch takes to make.
    transfer: seconds that it takes to get to the devices.
    step: seconds that the devices take for it.
    steps: number of them to time.

  Returns:
    Dictionary of seconds a step: `data`, `transfer` and `step`, each alone, as measured; `run`, of
    all together; and `over`, by which share `run` is longer than the longest of them.
  """
  config = _config(steps)
  # Threads, one a core and at most 16, make a batch each.
  source = _Noise(data / _BATCH * min(16, os.cpu_count() or 1))
  network = Network(_ARCH, vit.initial_params(_ARCH, seed=0), variant="tiny")
  with tempfile.TemporaryDirectory() as workdir:
    session = Session(config, workdir, Setup(network, source, _Noise(0.0)), lambda: None)
    session.put = _slower(session.put, transfer)
    session.program = _lasting(session.program, step)
    alone = _alone(config, session, network, steps)
    session.run()
    timed = next(line for line in metrics.read(workdir, "train") if line["step"] == 2 * steps)
  run = _BATCH / timed["images_per_s"]
  result = alone | {"run": run, "over": run / max(alone.values()) - 1}
  log("  ".join(f"{name} {value:.4f}" for name, value in result.items()))
  return result


def _config(steps):
  config = base()
  config.model.variant, config.model.num_classes = "tiny", len(_Noise.classes)
  config.model.image_size, config.model.patch_size = _ARCH.image_size, _ARCH.patch_size
  config.batch_size = config.eval.batch_size = _BATCH
  config.log_every = steps  # the first of them compile, too; the second are timed
  # A step is reported while the next one runs: two more, or the last would be timed otherwise.
  config.total_steps = config.eval.every = config.checkpoint_every = 2 * steps + 2
  config.eval.pictures = 0
  return config


def _alone(config, session, network, steps):
  batches = loader.train_batches(config, session.source, network.preprocessing)
  for _ in range(steps // 2):  # some were made ahead
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
  """The program, after which its devices sleep; neither its state nor its metrics come before."""

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
  """A `Source` of one image again and again, which takes its time."""

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
