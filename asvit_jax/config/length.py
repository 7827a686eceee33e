"""How long a run is."""

import math

from asvit_jax.core.errors import InputError

MOST_STEPS = 2**31 - 1  # steps are counted in int32 on the devices


def total_steps(config, images):
  """Number of training steps on a data set of that many images.

  Raises:
    InputError: more of them than can be counted.
  """
  if config.total_steps is not None:
    return config.total_steps
  steps = config.epochs * images / config.batch_size
  if steps > MOST_STEPS:
    raise InputError(
      f"epochs {config.epochs:g} of {images:,} images are {steps:.3g} steps of {config.batch_size} "
      f"images: expected at most {MOST_STEPS:,} steps"
    )
  return max(1, math.ceil(steps))
