"""Trains a dense or a pruned vision transformer; run it again to go on where it stopped.

python train.py --config configs/as_deit_s.py:0.65 --workdir runs/as_deit_s

Any key of the config can be changed: --config.batch_size=128 --config.data.dir=/data/imagenet.
"""

from absl import flags
from ml_collections import config_flags

from asvit_jax import cli
from asvit_jax.training import hosts
from asvit_jax.training.loop import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept.")
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "Check everything, say what would run, run nothing.")


def main(_):
  """Trains; returns the last evaluation."""
  hosts.initialize()
  with hosts.failing_fast():
    return train(_CONFIG.value, _WORKDIR.value, _DRY_RUN.value)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  cli.run(main)
