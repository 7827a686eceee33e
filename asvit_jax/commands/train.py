"""Trains a dense or a pruned vision transformer; run it again to go on where it stopped.

python train.py --config configs/as_deit_s.py:0.65 --workdir runs/as_deit_s

Any key of the config can be changed: --config.batch_size=128 --config.data.dir=/data/imagenet.
"""

from absl import flags

from asvit_jax.commands import arguments

ARGUMENTS = (0, 0)


def define_flags():
  """Defines them."""
  arguments.define_config("A file of configs/, its name, or one of yours.")
  flags.DEFINE_string("workdir", None, "Where the run is kept.")
  flags.DEFINE_bool("dry-run", False, "Check everything, say what would run, run nothing.")
  flags.mark_flags_as_required(["config", "workdir"])


def main(_):
  """Trains; returns the last evaluation."""
  from asvit_jax.core import hosts

  hosts.initialize()
  with hosts.failing_fast():
    from asvit_jax.training.loop import train

    return train(flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS["dry-run"].value)
