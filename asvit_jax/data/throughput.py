"""Measures how many images per second the host prepares for training, and where its time goes.

A chip that trains on N images per second needs N ÷ `images_per_s_a_core` cores for its data.
"""

import cProfile
import os
import pstats
import statistics
import time

from asvit_jax.core.progress import Progress
from asvit_jax.data import loader, sources

# Functions whose cumulative time is reported; none calls another.
_PARTS = ("decode", "random_resized_crop", "center_crop", "color_jitter", "rand_augment")


def measure(config, preprocessing, batches=8, rounds=5):
  """Times the preparation of training batches, on one core and on all.

  Args:
    config: a config; `data`, `model`, `batch_size` and `seed` are read.
    preprocessing: a `Preprocessing`.
    batches: number of batches in one timed round.
    rounds: number of rounds on one core; the median counts.

  Returns:
    Dictionary: `images_per_s_a_core`; `images_per_s` with worker processes on all `cores`; `shares`
    of one core's time by function, where "other" is reading files, copies and Grain.

  Raises:
    InputError: the data is missing or does not match the config.
  """
  source = sources.open_source(config.data, config.data.train_split)
  dataset = loader.train_dataset(config, source, preprocessing)
  images = batches * config.batch_size
  dataset[0]
  progress = Progress("measuring, rounds", rounds + 2)
  seconds = []
  for i in range(rounds):
    start = time.perf_counter()
    for k in range(batches):
      dataset[i * batches + k]
    seconds.append(time.perf_counter() - start)
    progress.update(i + 1)
  profile = cProfile.Profile()
  with profile:
    for k in range(batches):
      dataset[rounds * batches + k]
  progress.update(rounds + 1)
  result = {
    "images_per_s_a_core": images / statistics.median(seconds),
    "shares": _shares(profile),
  }

  config.data.workers = cores = len(os.sched_getaffinity(0))
  stream = loader.train_batches(config, source, preprocessing)
  for _ in range(4 * cores):  # discard batches that were ready when the clock starts
    next(stream)
  start = time.perf_counter()
  for _ in range(batches * cores):
    next(stream)
  rate = batches * cores * config.batch_size / (time.perf_counter() - start)
  stream.close()
  progress.update(rounds + 2)
  return result | {"images_per_s": rate, "cores": cores}


def _shares(profile):
  stats = pstats.Stats(profile)
  spent = dict.fromkeys(_PARTS, 0.0)
  for (file, _, name), (_, _, _, cumulative, _) in stats.stats.items():
    if name in spent and os.path.dirname(file) == os.path.dirname(__file__):
      spent[name] += cumulative
  shares = {name: value / stats.total_tt for name, value in spent.items() if value}
  return shares | {"other": 1 - sum(shares.values())}
