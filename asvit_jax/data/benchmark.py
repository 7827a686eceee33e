"""Measures how many images per second the host prepares for training, and where its time goes.

python -m asvit_jax.data.benchmark --config configs/as_deit_s.py --config.data.dir=DIR

A chip that trains on N images per second needs N ÷ `images_per_s_a_core` cores for its data.
"""

from absl import flags
from ml_collections import config_flags

from asvit_jax.core import command
from asvit_jax.data.preprocessing import Preprocessing


def define_flags():
  """Defines the command's flags; not at import, to avoid clashes with other commands."""
  config_flags.DEFINE_config_file(
    "config", None, "A config file, or the name of one in configs/.", lock_config=True
  )
  flags.DEFINE_integer("batches", 8, "Batches per timed round.", lower_bound=1)


def main(_):
  """Measures; returns the figures as a dictionary."""
  from asvit_jax.data.throughput import measure

  config = flags.FLAGS.config
  return measure(config, Preprocessing().overridden(config.data), flags.FLAGS.batches)


if __name__ == "__main__":
  define_flags()
  flags.mark_flag_as_required("config")
  command.run(main)
