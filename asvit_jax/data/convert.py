"""Converts a data set that TFDS prepared as tfrecord to array_record, which has random access.

python -m asvit_jax.data.convert --name imagenet2012 --data-dir ~/tensorflow_datasets --out DIR
python train.py … --config.data.name=tfds:imagenet2012 --config.data.dir=DIR

Needs no network, TensorFlow or Beam. Rerun an interrupted conversion and it resumes.
"""

from absl import flags

from asvit_jax.core import command, outputs, storage


def define_flags():
  """Defines the command's flags; not at import, to avoid clashes with other commands."""
  flags.DEFINE_string("name", None, "TFDS's name of the data set, NAME[/CONFIG][:VERSION].")
  flags.DEFINE_string(
    "data-dir", None, "TFDS data directory that contains it; by default TFDS's own."
  )
  outputs.define_directory("out", None, "TFDS data directory for the converted copy.", _check_out)


def _check_out(directory, flag):
  storage.on_disk(directory, flag, "convert to one, then copy")
  storage.check_writable(directory, flag)


def main(_):
  """Converts; returns a summary as a dictionary."""
  from asvit_jax.data.tfrecord import convert

  return convert(flags.FLAGS.name, flags.FLAGS["data-dir"].value, flags.FLAGS.out)


if __name__ == "__main__":
  define_flags()
  flags.mark_flags_as_required(["name", "out"])
  command.run(main)
