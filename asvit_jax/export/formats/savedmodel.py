"""The SavedModel format, run by TensorFlow."""

import functools
from typing import ClassVar

from asvit_jax.export.formats.base import ProgramFormat
from asvit_jax.export.programs import PLATFORMS, batch_size, flat_params, names_among, programs


class SavedModel(ProgramFormat):
  """SavedModel: packed at given batch sizes and masked at any, or fixed at any; see `formats`.

  An artifact has one signature per program; `serving_default` takes any number of images.
  """

  name = "savedmodel"
  needs: ClassVar = {"tensorflow": "tensorflow-cpu"}
  directory = "a SavedModel"
  options: ClassVar = ("tokens", "execution")

  def write(self, network, path, batch_sizes, tokens=False, execution=None):
    """Writes a `Network` to a path, see `formats`."""
    tf = self.require("tensorflow")
    from jax.experimental import jax2tf

    module = tf.Module()
    module.weights = {name: tf.Variable(value) for name, value in flat_params(network).items()}

    def signature(program, count):
      converted = jax2tf.convert(
        program,
        polymorphic_shapes=[None, f"({count or 'b'}, _, _, _)"],
        native_serialization_platforms=PLATFORMS,
        with_gradient=False,
      )
      shape = (count, *network.arch.image_shape)
      return tf.function(
        lambda images: converted(dict(module.weights), images),
        input_signature=[tf.TensorSpec(shape, tf.uint8, name="images")],
        autograph=False,
      )

    signatures = {
      name if count else "serving_default": signature(program, count)
      for name, (program, count) in programs(network, batch_sizes, tokens, execution).items()
    }
    try:
      tf.saved_model.save(module, str(path), signatures=signatures)
    except tf.errors.OpError as error:
      raise OSError(str(error)) from error

  def least_versions(self, path):
    """TensorFlow 2.20.0: 2.15.1, 2.16.2 and 2.18.1 do not run artifacts of jax 0.10.2."""
    del path
    return {"tensorflow": "2.20.0"}

  def read(self, path):
    """Reads the programs of an artifact, see `ProgramFormat`."""
    tf = self.require("tensorflow")
    module = tf.saved_model.load(str(path))

    def run(signature, images):
      outputs = signature(images=tf.constant(images))
      return [outputs[name].numpy() for name in names_among(outputs)]

    found = {}
    for name, signature in module.signatures.items():
      program = found[batch_size(name)] = functools.partial(run, signature)
      outputs = signature.structured_outputs
      program.shapes = {output: tuple(spec.shape) for output, spec in outputs.items()}
    return found


savedmodel = SavedModel()
