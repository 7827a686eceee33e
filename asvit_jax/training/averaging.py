"""How the averaged weights of a run follow the raw ones."""

import math

import jax.numpy as jnp
import numpy as np


def decay_at(step, decay, warmup):
  """The decay of the average in a step.

  Args:
    step: () int, the steps before this one.
    decay: `ema_decay`, in (0, 1).
    warmup: whether early steps have a smaller one, `(1 + step) / (10 + step)`, as TensorFlow's
      average has it: the first weights, which are the start and no result, are soon forgotten, and
      the average reaches over the last tenth of the steps or so, until that is longer than what
      `decay` reaches over.

  Returns:
    () float32, or `decay` itself.
  """
  if not warmup:
    return decay
  step = jnp.asarray(step, jnp.float32)
  return jnp.minimum(decay, (1 + step) / (10 + step))


def initial_share(steps, decay, warmup):
  """The share of the weights of step 0 that the average after `steps` steps still holds."""
  if not warmup:
    return float(decay**steps)
  # (1 + t) ÷ (10 + t) is below the decay in the first steps; their product is 9! n! ÷ (n + 9)!.
  first = min(steps, max(0, math.ceil((10 * decay - 1) / (1 - decay))))
  k = np.arange(1, 10, dtype=np.float64)
  return float(np.exp(np.log(k / (first + k)).sum() + (steps - first) * math.log(decay)))
