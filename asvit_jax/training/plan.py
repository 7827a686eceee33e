"""What a run would be, known before it begins."""

import jax
import numpy as np

from asvit_jax import complexity, vit
from asvit_jax import config as config_lib
from asvit_jax.training.optimizer import learning_rate, warmup_steps
from asvit_jax.training.step import create_state


def plan(config, arch, params, source, eval_source):
  """Counts what a run of a config would do.

  Args:
    config: see `config.base`.
    arch: the `Architecture` it trains.
    params: its parameters.
    source: images to train on.
    eval_source: images to evaluate on.

  Returns:
    Dictionary: `variant`, `parameters`, `gmacs_dense`, `gmacs_target` (None for a dense network);
    `data`, `images`, `eval_images`; `devices`, `platform`, `hosts`, `batch_size`, `batch_a_device`,
    `accumulate`; `steps`, `warmup_steps`, `lr_peak`, `lr_end`, `evaluations`, `checkpoints`.
  """
  steps = config_lib.total_steps(config, len(source))
  warmup = warmup_steps(config, steps)
  evaluated = {*range(config.eval.every, steps, config.eval.every), steps}  # and saved, too
  saved = {*range(config.checkpoint_every, steps, config.checkpoint_every)}
  schedule, gmacs = learning_rate(config, steps), complexity.dense_gmacs(arch)
  return {
    "variant": config.model.variant,
    "parameters": vit.count_parameters(params),
    "gmacs_dense": gmacs,
    "gmacs_target": config.budget and config.budget * gmacs,
    "data": config.data.name,
    "images": len(source),
    "eval_images": len(eval_source),
    "devices": jax.device_count(),
    "platform": jax.devices()[0].platform,
    "hosts": jax.process_count(),
    "batch_size": config.batch_size,
    "batch_a_device": config.batch_size // jax.device_count(),
    "accumulate": config.accumulate,
    "steps": steps,
    "warmup_steps": warmup,
    "lr_peak": float(schedule(warmup)),
    "lr_end": float(schedule(steps)),
    "evaluations": len(evaluated),
    "checkpoints": len(evaluated | saved),
  }


def describe(plan):
  """A plan in words."""
  aim = ""
  if plan["gmacs_target"] is not None:
    aim = f", aiming at {plan['gmacs_target']:.4f}"
  parts = "" if plan["accumulate"] == 1 else f" in {plan['accumulate']} parts"
  return (
    f"{plan['variant']}: {plan['parameters']:,} parameters, "
    f"{plan['gmacs_dense']:.4f} GMACs dense{aim}\n"
    f"{plan['data']}: {plan['images']:,} images to train on, "
    f"{plan['eval_images']:,} to evaluate on\n"
    f"{plan['steps']:,} steps of {plan['batch_size']} images: {plan['batch_a_device']} on each of "
    f"{plan['devices']} {plan['platform']} device(s) of {plan['hosts']} host(s){parts}\n"
    f"learning rate {plan['lr_peak']:.3g} after {plan['warmup_steps']:,} steps of warm-up, "
    f"{plan['lr_end']:.3g} at the end; {plan['evaluations']:,} evaluations, "
    f"{plan['checkpoints']:,} checkpoints"
  )


def memory_mb(config, program, params, teacher_params, optimizer):
  """MiB that a step takes on a device, by the compiler's account; None where it gives none.

  Args:
    config: see `config.base`.
    program: of `parallel.parallelize`.
    params: of the network.
    teacher_params: of its teacher.
    optimizer: an optax optimizer.
  """
  state = jax.eval_shape(lambda: create_state(params, optimizer, config.ema_decay))
  size, images = config.model.image_size, config.batch_size
  if config.parallel == "pmap":  # takes the arrays of its host, shard_map those of all
    images //= jax.process_count()
  batch = {
    "image": jax.ShapeDtypeStruct((images, size, size, 3), np.uint8),
    "label": jax.ShapeDtypeStruct((images,), np.int32),
  }
  if config.parallel == "pmap":
    devices = jax.local_device_count()
    state, teacher_params = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((devices, *x.shape), x.dtype), (state, teacher_params)
    )
    batch = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct((devices, images // devices, *x.shape[1:]), x.dtype), batch
    )
  return complexity.memory_mb(program.lower(state, teacher_params, batch).compile())
