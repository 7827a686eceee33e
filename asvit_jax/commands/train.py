"""Trains a dense or a pruned vision transformer; rerun it to resume where it stopped.

python train.py --config configs/as_deit_s.py:0.65 --workdir runs/as_deit_s

The budget, a share of the dense GMACs, follows the name of the recipe, as_deit_s:0.65. Any key of
the config can be changed: --config.batch_size=128 --config.data.dir=/data/imagenet.
To resume a run, --workdir is enough; to extend it, add --config.total_steps=2000. With --dry-run
--target=tpu:v5e:2x4, or gpu:h100, or gpu:h100:8, the run is compiled for devices that need not be
here, and its needs are reported; neither data nor weights are needed.
"""

from absl import flags

from asvit_jax.commands import arguments, typed
from asvit_jax.core import outputs
from asvit_jax.core.errors import InputError

ARGUMENTS = (0, 0)


def define_flags():
  """Defines the flags."""
  arguments.define_config(
    "A config file, or the name of one in configs/; by default that of the run in --workdir.",
    goes_on=True,
    trains=True,
  )
  arguments.define_parts()
  outputs.define_directory("workdir", None, "Directory of the run.", _check_workdir)
  flags.DEFINE_bool("dry-run", False, "Check everything and print what would run, but run nothing.")
  arguments.define_target("With --dry-run: the devices to compile the run for.")
  if flags.FLAGS["config"].default is None:
    flags.mark_flag_as_required("config")
  flags.register_multi_flags_validator(
    ["workdir", "target"],
    lambda given: given["workdir"] is not None or given["target"] is not None,
    "Flag --workdir must have a value other than None, except in a dry run for a --target.",
  )


def _check_workdir(workdir, _):
  from asvit_jax.run import layout

  layout.check(workdir)


def main(_):
  """Trains; returns the last evaluation."""
  if flags.FLAGS.target is not None:
    return _compile()
  from asvit_jax.core import hosts

  hosts.initialize()
  with hosts.failing_fast():
    from asvit_jax.training.train import train

    return train(typed.config(), flags.FLAGS.workdir, flags.FLAGS["dry-run"].value)


def _compile():
  """Handles --target: compiles the run for the devices and reports its needs."""
  from asvit_jax.targets import chips, process

  target = chips.parse_target(flags.FLAGS.target)
  if not flags.FLAGS["dry-run"].value:
    raise InputError(
      f"--target {target.name} without --dry-run: it only compiles, for devices that need not be "
      "here: add --dry-run, or leave out --target to train on this machine"
    )
  return process.run({"what": "training", "config": typed.config().to_dict()}, target)
