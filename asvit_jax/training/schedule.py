"""How many steps a run has, and the learning rate of each."""

import jax.numpy as jnp
import optax


def warmup_steps(config, steps):
  """How many of a run's steps the learning rate rises for."""
  return int(config.optimizer.warmup * decay_steps(config, steps))


def decay_steps(config, steps):
  """How many of a run's steps the learning rate takes to its end."""
  return config.optimizer.decay_steps or steps


def learning_rate(config, steps):
  """Linear warm-up, then half a cosine from the peak to `end_lr`.

  Args:
    config: see `config.base`; `optimizer.lr` and `optimizer.end_lr` are given for a batch of 512
      and scale with the batch (arXiv:1706.02677).
    steps: number of steps of the whole run, over which it goes where `optimizer.decay_steps` does
      not say how many; afterwards it stays.

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
    decay_steps=max(decay_steps(config, steps), 1),
    end_value=end,
  )
  # By itself it would compute in float64 where JAX has that, and end elsewhere.
  return lambda step: schedule(jnp.asarray(step, jnp.float32))
