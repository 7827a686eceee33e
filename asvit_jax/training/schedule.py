"""How many steps a run has, and the learning rate of each."""

import math

import jax.numpy as jnp
import optax


def total_steps(config, images):
  """Number of training steps on a data set of that many images."""
  if config.total_steps is not None:
    return config.total_steps
  return max(1, math.ceil(config.epochs * images / config.batch_size))


def warmup_steps(config, steps):
  """How many of a run's steps the learning rate rises for."""
  return int(config.optimizer.warmup * steps)


def learning_rate(config, steps):
  """Linear warm-up, then half a cosine from the peak to `end_lr`.

  Args:
    config: see `config.base`; `optimizer.lr` and `optimizer.end_lr` are given for a batch of 512
      and scale with the batch (arXiv:1706.02677).
    steps: number of steps of the whole run.

  Returns:
    Function of the step that returns () float32.
  """
  scale = config.batch_size / 512
  peak, end = config.optimizer.lr * scale, config.optimizer.end_lr * scale
  warmup = warmup_steps(config, steps)
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=peak if warmup == 0 else 0.0,
    peak_value=peak,
    warmup_steps=warmup,
    decay_steps=max(steps, 1),
    end_value=end,
  )
  # By itself it would compute in float64 where JAX has that, and end elsewhere.
  return lambda step: schedule(jnp.asarray(step, jnp.float32))
