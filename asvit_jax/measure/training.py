"""A training step: the recipe's, of a pruned network with its dense teacher, on all devices."""

import time

import jax
import numpy as np

from asvit_jax.config.plan import unchecked
from asvit_jax.core import recipes
from asvit_jax.measure.subjects import subject
from asvit_jax.optimizers import building
from asvit_jax.training import parallel
from asvit_jax.training.step import create_state, make_program

_STEPS = 5
_IMAGES = 1_281_167  # of ImageNet: the schedule of the learning rate needs a number


def run(arch, reduction, dtype, shares, images, a_device, kernels=False):
  """Times steps on random images and labels.

  Args:
    arch: an `Architecture`.
    reduction: one of `settings.REDUCTIONS`.
    dtype: compute type.
    shares: shares of the dense GMACs to calibrate for; the step trains for the first.
    images: number of images to calibrate on.
    a_device: images in a step on each device.
    kernels: `model.kernels`.

  Returns:
    Dictionary for JSON: `images`, of a step on all `devices`; `images_per_s`; `ms` of a step;
    `first_s`, the seconds of the first one, which compiles; `loss`, which must be finite.
  """
  network = subject(arch, reduction, shares, shares[0], images, dtype).network.with_counts(())
  plan = plan_of(network, shares[0], a_device, kernels)
  optimizer = building.create(plan.optimizer, plan.schedule)
  program, _ = make_program(plan, network, optimizer)
  state = parallel.replicate(create_state(network.params, optimizer, plan.ema_decay), plan.parallel)
  teacher = parallel.replicate(network.dense.params, plan.parallel)
  batch = parallel.shard(batch_of(network, plan), plan.parallel)
  start = time.perf_counter()
  state, metrics = jax.block_until_ready(program(state, teacher, batch))
  first = time.perf_counter() - start
  start = time.perf_counter()
  for _ in range(_STEPS):
    state, metrics = program(state, teacher, batch)
  jax.block_until_ready((state, metrics))
  seconds = (time.perf_counter() - start) / _STEPS
  loss = float(np.asarray(metrics["loss"]).reshape(-1)[0])
  return {
    "images": plan.batch_size,
    "devices": jax.local_device_count(),
    "images_per_s": plan.batch_size / seconds,
    "ms": 1e3 * seconds,
    "first_s": first,
    "loss": loss,
    "finite": bool(np.isfinite(loss)),
  }


def plan_of(network, share, a_device, kernels=False):
  """The `Plan` of the recipe for a `Network`, with `a_device` images on each device."""
  config = recipes.load("as_deit_s", str(share))
  config.model.dtype, config.model.kernels = network.dtype, kernels
  config.batch_size = a_device * jax.local_device_count()
  return unchecked(config).of_images(_IMAGES).of_network(network.arch, network.preprocessing)


def batch_of(network, plan):
  """Random images and labels."""
  rng = np.random.default_rng(0)
  return {
    "image": rng.integers(0, 256, (plan.batch_size, *network.arch.image_shape), np.uint8),
    "label": rng.integers(0, network.arch.classes, plan.batch_size, np.int32),
  }
