"""Runs a network on any number of images, pool by pool: see `Network.stream`.

Packed and flat sort the images of a call by what they keep, or lay them out together: the more
images, the less padding. JAX returns before the device has computed, so that while one pool runs,
the next one is read and the results of the one before are used.
"""

import contextlib
import dataclasses
import functools

import jax
import numpy as np

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.network import checking
from asvit_jax.network.pools import pools
from asvit_jax.sparsity.executions import grouped

# Images of a pool on an accelerator. Flat rows of so many are at most 1 % more than what is kept.
POOL = 1024
# Groups of packed on a CPU in a pool; each fits the cache, see `grouped`.
_GROUPS_ON_CPU = 32
# Bytes on an accelerator of a pool's largest intermediate result, in float32: that of 1024 images
# of DeiT-S takes 1.2 GB.
_BYTES = 2**31


def stream(network, images, execution=None, pool=None, tokens=False):
  """Runs a network on many images; see `Network.stream`."""
  checking.check_not_traced("Network.stream")
  execution = execution or network.default_execution()
  network.check_execution(execution)
  size = pool_of(network) if pool is None else _checked(pool)
  found = pools(images, size, network.arch, network.preprocessing)
  run = functools.partial(_compiled, network.for_execution(execution), execution, bool(tokens))
  return _results(run, found, size)


def pool_of(network):
  """The default number of images in a pool on the network's device, a power of two."""
  arch, images = network.arch, POOL
  if platform_of(network) == "cpu":
    return min(images, _GROUPS_ON_CPU * grouped.images_at_once(arch, images, grouped.CACHED_PACKED))
  n = arch.prefix_tokens + arch.patches
  most = 4 * n * max(arch.hidden * (1 + arch.swiglu), arch.heads * n)
  while images > 1 and images * most > _BYTES:
    images //= 2
  return images


def platform_of(network):
  """JAX's name of the platform that a network runs on: that of its parameters."""
  for leaf in jax.tree.leaves(network.params):
    if isinstance(leaf, jax.Array):
      return next(iter(leaf.devices())).platform
  return jax.default_backend()


@contextlib.contextmanager
def enough_memory(what, images):
  """A context in which running out of memory raises InputError, for `images` called `what`."""
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise InputError(
      f"{what} {images:,}: this machine has too little memory for so many images: give fewer"
    ) from error


def _checked(pool):
  if not sizes.is_whole(pool) or not 1 <= pool <= sizes.MOST_BATCH:
    raise InputError(
      f"pool {shown(pool)}: expected the number of images to run at once, 1 to "
      f"{sizes.MOST_BATCH:,}, or None for the number that suits the device"
    )
  return int(pool)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _compiled(network, execution, tokens, images):
  outputs = network._run(images, execution, tokens)
  if tokens:
    return outputs
  large = ("tokens", "positions", "sources", "aux_logits")
  return dataclasses.replace(outputs, **dict.fromkeys(large))


def _results(run, pools, size):
  """Yields the `Outputs` of pools, as NumPy arrays; starts a pool before it waits for the last.

  Args:
    run: function of images (b, h, w, 3) that returns `Outputs` without waiting for them.
    pools: iterator of arrays of images; only the last may have less than `size`.
    size: number of images to compile for. Less than a pool in all run at the next power of two.
  """
  before, error, padded = None, None, None
  with contextlib.closing(pools):
    while True:
      try:
        images = next(pools, None)
      except Exception as found:  # what runs already is handed over first
        images, error = None, found
      running = None
      if images is not None:
        padded = padded or min(size, 1 << (len(images) - 1).bit_length())
        rows = np.arange(padded) % len(images)  # real images, which keep usual numbers of tokens
        with enough_memory("pool", padded):
          running = run(images if len(images) == padded else images[rows]), len(images)
      if before is not None:
        outputs, count = before
        with enough_memory("pool", padded):
          outputs = jax.device_get(outputs)
        yield jax.tree.map(lambda a, count=count: a[:count], outputs)
      if error is not None:
        raise error
      if running is None:
        return
      before = running
