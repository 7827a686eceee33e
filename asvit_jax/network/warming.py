"""Compiles a network's programs ahead of its calls."""

import jax
import numpy as np

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError


def warm_up(network, batch_sizes, execution, tokens):
  """Runs the network once per batch size, see `Network.warm_up`; InputError for bad sizes."""
  for size in sizes.check_batches(batch_sizes):
    try:
      images = np.zeros((size, *network.arch.image_shape), np.uint8)
      jax.block_until_ready(network(images, execution, tokens))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        raise
      raise InputError(
        f"batch size {size:,}: this machine's memory does not hold so many images: give fewer"
      ) from error
