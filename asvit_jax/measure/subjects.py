"""The networks that are measured: random, sharpened, and calibrated on noise."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from asvit_jax.core import turns
from asvit_jax.evaluation import speed
from asvit_jax.measure.settings import reduced
from asvit_jax.network import Network, create


class Subject(NamedTuple):
  """A network at one budget, and images of which it keeps various numbers of tokens.

  Attributes:
    network: a `Network`, with thresholds and counts.
    images: (b, s, s, 3) uint8.
    kept: (b, stages) number of patches that the thresholds keep of each.
  """

  network: Network
  images: np.ndarray
  kept: np.ndarray

  def batch(self, count):
    """The `Subject` with images at evenly spaced quantiles of the cost, `count` of them."""
    chosen = turns.representative(self.network.gmacs(self.kept), count)
    return self._replace(images=self.images[chosen], kept=self.kept[chosen])


@functools.cache
def subject(arch, reduction, shares, share, images, dtype):
  """A `Subject`.

  Args:
    arch: an `Architecture`.
    reduction: one of `settings.REDUCTIONS`.
    shares: the shares of the dense GMACs that are calibrated together.
    share: one of them.
    images: number of images.
    dtype: compute type of the network; the thresholds are calibrated in float32.
  """
  dial, noise = _calibrated(arch, reduction, shares, images)
  network = dial if len(shares) == 1 else dial.at(share)
  network = dataclasses.replace(network, dtype=dtype)
  return Subject(network, noise, np.concatenate([o.kept for o in one_by_one(network, noise)]))


def one_by_one(network, images):
  """The `Outputs` of masked execution of each image alone, a list."""
  return [network(image[None], "masked") for image in images]


@functools.cache
def _calibrated(arch, reduction, shares, images):
  random = dataclasses.replace(_random(arch.dense), arch=reduced(arch, reduction))
  random = random.with_thresholds(np.zeros(random.arch.stages))
  network, noise = speed.on_noise(random, max(shares), images)
  return network.calibrate(noise, shares if len(shares) > 1 else shares[0]), noise


@functools.cache
def _random(arch):
  return create(arch)
