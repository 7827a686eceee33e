"""How long a run is."""

import math


def total_steps(config, images):
  """Number of training steps on a data set of that many images."""
  if config.total_steps is not None:
    return config.total_steps
  return max(1, math.ceil(config.epochs * images / config.batch_size))
