"""The networks that are measured: random, sharpened, and calibrated on noise."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from asvit_jax.core import turns
from asvit_jax.evaluation import speed
from asvit_jax.measure.settings import reduced
from asvit_jax.network import Network


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
  dial, noise = _calibrated(reduced(arch, reduction), shares, images)
  network = dial if len(shares) == 1 else dial.at(share)
  network = dataclasses.replace(network, dtype=dtype)
  kept = np.asarray(network(noise, "masked").kept)
  return Subject(network, noise, kept)


@functools.cache
def _calibrated(arch, shares, images):
  network, noise = speed.on_noise(arch, "", "float32", max(shares), images)
  return network.calibrate(noise, shares if len(shares) > 1 else shares[0]), noise
