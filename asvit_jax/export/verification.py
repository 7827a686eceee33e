"""Holds the programs of an artifact against the network in memory."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.sizes import height_width

TOLERANCE = 1e-3  # of logits, artifact against memory; other compilers sum in another order
_NEAR = 1e-6  # scores so near a threshold that rounding decides


def largest_difference(network, programs, name):
  """Runs random and extreme images through every program, and through the network in memory.

  Images with a score so near its threshold that rounding decides are left out.

  Args:
    network: a `Network` that computes in float32.
    programs: the `Programs` of an artifact of it.
    name: of the format, for the error.

  Returns:
    The largest difference between logits.

  Raises:
    InputError: they differ.
  """
  images = sample_images(network.arch.image_size)
  network = network.with_params(jax.device_get(network.params))  # to where this runs
  expected = jax.device_get(reference(network, images))
  certain, largest = expected["certain"], 0.0
  # A number that the program for any number runs, and those of all others.
  free = next(n for n in itertools.count(len(images)) if n not in programs.packed_sizes)
  for size in (free, *programs.packed_sizes):
    rows = np.arange(size) % len(images)
    logits, kept = programs(images[rows])
    differ = (kept != expected["kept"][rows]).any(axis=-1) & certain[rows]
    error = np.abs(logits - expected["logits"][rows])[certain[rows]].max(initial=0.0)
    largest = max(largest, float(error))
    if differ.any() or not error <= TOLERANCE:
      raise InputError(
        f"the {name} artifact, reloaded, does not do what the network does (batch of {size}: "
        f"logits differ by {error:.2g}, {int(differ.sum())} images keep other tokens): nothing was "
        "exported; please report this with the versions of `pip list`"
      )
  return largest


@jax.jit
def reference(network, images):
  """What a network in memory makes of images.

  Returns:
    Dictionary of `logits` (b, classes), `kept` (b, stages), and `certain` (b,) bool, whether no
    rounding can decide what is kept of an image.
  """
  outputs = network.apply(images, "masked" if network.prunes else "dense")
  certain = jnp.ones(len(images), bool)
  if network.prunes:
    before = jnp.concatenate([jnp.ones_like(outputs.keep[:, :1]), outputs.keep[:, :-1]], axis=1)
    near = jnp.abs(outputs.scores - network.params["thresholds"][:, None]) < _NEAR
    certain = ~(near & (before > 0)).any(axis=(1, 2))
  return {"logits": outputs.logits, "kept": outputs.kept, "certain": certain}


def sample_images(size):
  """(8, height, width, 3) uint8: noise of several kinds, a gradient, black, white."""
  height, width = height_width(size)
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (3, height, width, 3))
  coarse = np.kron(
    rng.integers(0, 256, (2, 7, 7, 3)), np.ones((1, -(-height // 7), -(-width // 7), 1))
  )
  gradient = np.linspace(0, 255, height)[None, :, None, None]
  gradient = np.broadcast_to(gradient, (1, height, width, 3))
  flat = np.stack([np.zeros((height, width, 3)), np.full((height, width, 3), 255)])
  images = [noise, coarse[:, :height, :width], gradient, flat]
  return np.concatenate(images).astype(np.uint8)
