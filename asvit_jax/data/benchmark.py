"""Measures how many images per second the host prepares for training, and where its time goes.

python -m asvit_jax.data.benchmark --config configs/as_deit_s.py --config.data.dir=DIR

A chip that trains on N images per second needs N ÷ `images_per_s_a_core` cores for its data.
"""

import cProfile
import os
import pstats
import statistics
import time

from absl import flags
from ml_collections import config_flags

from asvit_jax.core import command
from asvit_jax.core.progress import Progress
from asvit_jax.data import loader, sources

# Functions whose cumulative time is reported; none calls another.
_PARTS = ("decode", "random_resized_crop", "center_crop", "color_jitter", "rand_augment")


def measure(plan, preprocessing, batches=8, rounds=5):
  """Times the preparation of training batches, on one core and on all.

  Args:
    plan: a `Plan`; `data`, `model`, `batch_size` and `seed` are read.
    preprocessing: a `Preprocessing`.
    batches: number of batches in one timed round.
    rounds: number of rounds on one core; the median counts.

  Returns:
    Dictionary: `images_per_s_a_core`; `images_per_s` with worker processes on all `cores`; `shares`
    of one core's time by function, where "other" is reading files, copies and Grain.

  Raises:
    InputError: the data is missing or does not match the plan.
  """
  source = sources.open_source(plan.data, plan.data.train_split)
  dataset = loader.train_dataset(plan, source, preprocessing)
  images = batches * plan.batch_size
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

  cores = len(os.sched_getaffinity(0))
  plan = plan.replace(**{"data.workers": cores})
  stream = loader.train_batches(plan, source, preprocessing)
  for _ in range(4 * cores):  # what the workers had ready when the first had started
    next(stream)
  start = time.perf_counter()
  for _ in range(batches * cores):
    next(stream)
  rate = batches * cores * plan.batch_size / (time.perf_counter() - start)
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


def define_flags():
  """Defines the command's flags; not at import, to avoid clashes with other commands."""
  config_flags.DEFINE_config_file(
    "config", None, "A config file, or the name of one in configs/.", lock_config=True
  )
  flags.DEFINE_integer("batches", 8, "Batches per timed round.", lower_bound=1)


def main(_):
  """Measures; returns the figures as a dictionary."""
  from asvit_jax.config.plan import resolve  # JAX takes a second to import

  plan = resolve(flags.FLAGS.config, trains=False)
  return measure(plan, plan.preprocessing, flags.FLAGS.batches)


if __name__ == "__main__":
  define_flags()
  flags.mark_flag_as_required("config")
  command.run(main)
