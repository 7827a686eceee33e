"""Timing of contenders and the dense network, in turn, in one process."""

import functools

import jax
import numpy as np

from asvit_jax.comparison.accuracy import run_dense
from asvit_jax.core.progress import log
from asvit_jax.core.turns import in_turn, representative
from asvit_jax.data import loader, sources
from asvit_jax.evaluation.speed import summarize

_POOL = 256  # images from which the batch of an adaptive contender is chosen


class Timer:
  """Times the forward pass of a batch; programs are compiled once and used again.

  Methods with fixed counts are timed on images that are evenly spaced in the source. The time of an
  adaptive method depends on the images, so its batch is representative: the costs of its images are
  evenly spaced quantiles of the costs of a larger sample.

  Args:
    dense: the `Network`, without thresholds.
    plan: a `Plan`; `data` and `eval.batch_size` are read.
    source: a `Source` of the images to evaluate on.
    count: number of images in a batch.
  """

  def __init__(self, dense, plan, source, count):
    self._dense, self._plan, self._source, self._count = dense, plan, source, count
    self._programs = {}

  def time(self, contenders, rounds):
    """Times contenders and the dense network, one after the other in every round.

    Args:
      contenders: list of `Contender`, calibrated, each with a different method.
      rounds: number of times that each is timed.

    Returns:
      {name of a method or "dense": dictionary of `evaluation.speed.summarize`}.
    """
    calls = {"dense": self._call("dense", run_dense, self._dense, self._images)}
    for contender in contenders:
      # Thresholds are an argument of the program, counts are compiled into it.
      calls[contender.name] = self._call(
        (contender.name, contender.counts),
        contender.execution(),
        contender.network,
        self._images_for(contender),
      )
    return summarize(in_turn(calls, rounds), self._count)

  def _call(self, key, run, network, images):
    """A function without arguments that runs the program once, and waits for it."""
    if key not in self._programs:
      program = jax.jit(lambda network, images: run(network, images).logits)
      self._programs[key] = program.lower(network, images).compile()
      log(f"{key if isinstance(key, str) else key[0]}: compiled")
    program = self._programs[key]

    def call():
      jax.block_until_ready(program(network, images))

    call()  # the first call is slower
    return call

  def _images_for(self, contender):
    """(count, s, s, 3) uint8 images on which to time a contender."""
    if not contender.method.adaptive:
      return self._images
    network, pool = contender.network, self._pool
    size = min(32, len(pool))
    groups = (
      np.resize(pool[i : i + size], (size, *pool.shape[1:])) for i in range(0, len(pool), size)
    )
    kept = np.concatenate([np.asarray(_kept(network, group)) for group in groups])[: len(pool)]
    return pool[representative(contender.gmacs(kept)[0], self._count)]

  @functools.cached_property
  def _images(self):
    return batch_of(self._plan, self._source, self._dense.preprocessing, self._count)

  @functools.cached_property
  def _pool(self):
    count = min(max(_POOL, self._count), len(self._source))
    return batch_of(self._plan, self._source, self._dense.preprocessing, count)


def batch_of(plan, source, preprocessing, count):
  """(count, s, s, 3) uint8 images, evenly spaced in a source; repeated if it has fewer."""
  sample = sources.Sample(source, count)
  batches = loader.eval_batches(plan, sample, preprocessing)
  images = np.concatenate([batch["image"][batch["valid"]] for batch in batches])
  return np.resize(images, (count, *images.shape[1:]))


@jax.jit
def _kept(network, images):
  """(b, stages) patches that the thresholds keep."""
  return network.apply(images, "masked").kept
