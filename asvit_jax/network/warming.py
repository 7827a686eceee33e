"""What compiles a network's programs before calls need them."""

import jax
import numpy as np

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError


def warm_up(network, batch_sizes, execution, tokens):
  """See `Network.warm_up`; raises InputError for sizes that are none, or too large."""
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
