"""Converts a data set that TFDS prepared as tfrecord to array_record, which has random access.

python -m asvit_jax.data.convert --name imagenet2012 --data-dir ~/tensorflow_datasets --out DIR
python train.py … --config.data.name=tfds:imagenet2012 --config.data.dir=DIR

Without network, TensorFlow or Beam. A conversion that was interrupted goes on where it stopped.
"""

from absl import flags

from asvit_jax.core import command


def define_flags():
  """The flags of the command line; not at import, where they would meet those of other tools."""
  flags.DEFINE_string("name", None, "NAME[/CONFIG][:VERSION] as TFDS calls it.")
  flags.DEFINE_string("data-dir", None, "Where it is; by default where TFDS keeps data.")
  flags.DEFINE_string("out", None, "TFDS data directory for the converted copy.")


def main(_):
  """Converts; returns what was converted."""
  from asvit_jax.data.tfrecord import convert

  return convert(flags.FLAGS.name, flags.FLAGS["data-dir"].value, flags.FLAGS.out)


if __name__ == "__main__":
  define_flags()
  flags.mark_flags_as_required(["name", "out"])
  command.run(main)
