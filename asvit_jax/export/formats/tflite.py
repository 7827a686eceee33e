"""The TFLite format, run by LiteRT on phones and small computers, with built-in operators only."""

import importlib
import tempfile
import threading
from typing import ClassVar

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.export.formats.base import ProgramFormat
from asvit_jax.export.programs import flat_params, names_among, program_for_any_number

_SIGNATURE = "serving_default"


class TFLite(ProgramFormat):
  """TFLite, masked or fixed, one image at a time because its shapes are static; see `formats`."""

  name = "tflite"
  needs: ClassVar = {"tensorflow": "tensorflow-cpu"}
  options: ClassVar = ("tokens", "execution")

  def write(self, network, path, batch_sizes, tokens=False, execution=None):
    """Writes a `Network` to a path, see `formats`."""
    del batch_sizes
    tf = self.require("tensorflow")
    from jax.experimental import jax2tf
    from tensorflow.lite.python.convert import ConverterError

    _, program = program_for_any_number(network, tokens, execution)
    flat, shape = flat_params(network), network.arch.image_shape

    def forward(images):
      outputs = program(flat, images)
      # A dense network's `kept` is empty, and TFLite has no empty tensors.
      return {name: array for name, array in outputs.items() if array.size}

    converted = jax2tf.convert(
      forward, native_serialization_platforms=("cpu",), with_gradient=False
    )
    images = tf.TensorSpec((1, *shape), tf.uint8, name="images")
    function = tf.function(converted, input_signature=[images], autograph=False)
    with tempfile.TemporaryDirectory() as directory:  # a signature gives names to the outputs
      tf.saved_model.save(tf.Module(), directory, signatures={_SIGNATURE: function})
      converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=[_SIGNATURE])
      converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
      try:
        path.write_bytes(converter.convert())
      except ConverterError as error:
        raise InputError(
          f"TFLite's built-in operators cannot express this network: {str(error)[:300]}"
        ) from error

  def least_versions(self, path):
    """The oldest runtime with all operators, as the converter records it; see `formats`."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    metadata = (model.Metadata(i) for i in range(model.MetadataLength()))
    buffers = {entry.Name(): model.Buffers(entry.Buffer()) for entry in metadata}
    least = buffers[b"min_runtime_version"].DataAsNumpy().tobytes().rstrip(b"\0")
    return {"tensorflow": least.decode()}

  def read(self, path):
    """Reads the program with LiteRT if installed, else with TensorFlow; see `ProgramFormat`."""
    try:
      interpreter_of = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError:
      interpreter_of = self.require("tensorflow").lite.Interpreter
    interpreter = interpreter_of(model_content=path.read_bytes())
    runner, lock = interpreter.get_signature_runner(_SIGNATURE), threading.Lock()
    found = runner.get_output_details()

    def run(images):
      with lock:  # an interpreter has one set of tensors
        outputs = runner(images=images)
      outputs.setdefault("kept", np.zeros((len(images), 0), np.float32))
      return [outputs[name] for name in names_among(outputs)]

    run.shapes = {name: tuple(map(int, details["shape"])) for name, details in found.items()}
    return {1: run}


tflite = TFLite()
