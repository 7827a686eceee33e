"""The ONNX format, run by ONNX Runtime."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.export.formats.base import ProgramFormat
from asvit_jax.export.formats.stitching import packed_model
from asvit_jax.export.programs import (
  flat_params,
  names_among,
  output_names,
  program_for_any_number,
)

_OPSET, _LEAST_OPSET = 23, 13
# {opset: oldest ONNX Runtime that ran artifacts of this or an older opset}; tested with 1.15.1,
# 1.16.3, 1.17.3, 1.18.1, 1.20.1, 1.21.1, 1.22.1, 1.23.2 and 1.24.1. None of them runs what jax2onnx
# writes with opset 12.
_RUNTIMES = {18: "1.15.1", 20: "1.17.3", 21: "1.18.1", 22: "1.21.1", 23: "1.23.2", 25: "1.24.1"}


class Onnx(ProgramFormat):
  """ONNX with masked or fixed execution at any batch size, or packed for one image; see `formats`.

  Packed execution of batches is not possible: the converter does not support `lax.switch` with more
  than two branches.
  """

  name = "onnx"
  needs: ClassVar = {"jax2onnx": "jax2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"}
  options: ClassVar = ("tokens", "opset", "execution")
  executions: ClassVar = ("masked", "fixed", "packed")
  compiles = False

  def check_options(self, options):
    """Raises InputError for an invalid option or opset, see `Format`."""
    super().check_options(options)
    if "opset" not in options:
      return
    newest = self.require("onnx").defs.onnx_opset_version()
    if not _LEAST_OPSET <= options["opset"] <= newest:
      raise InputError(
        f"--opset {options['opset']}: expected {_LEAST_OPSET} to {newest}, the newest that the "
        "installed onnx knows"
      )

  def write(self, network, path, batch_sizes, tokens=False, opset=None, execution=None):
    """Writes a `Network` to a path, see `formats`."""
    del batch_sizes
    onnx, opset = self.require("onnx"), opset or _OPSET
    if execution == "packed":
      log("the packed ONNX program takes one image: larger batches run image by image")
      model = packed_model(network, tokens, opset)
    else:
      model = self._model(network, tokens, opset, execution)
    # The converter sets the newest IR version; the opset's own minimum suits older runtimes, too.
    needed = onnx.helper.find_min_ir_version_for(model.opset_import)
    model.ir_version = min(model.ir_version, needed)
    onnx.save(model, str(path))

  def _model(self, network, tokens, opset, execution):
    """The ONNX model of a program for any number of images."""
    from jax import export

    _, program = program_for_any_number(network, tokens, execution)
    flat, names = flat_params(network), output_names(network, tokens)

    def forward(images):
      outputs = program(flat, images)
      return tuple(outputs[name] for name in names)

    batch = export.symbolic_shape("b")[0]
    images = jax.ShapeDtypeStruct((batch, *network.arch.image_shape), jnp.uint8)
    return self.require("jax2onnx").to_onnx(
      forward, [images], opset=opset, input_names=["images"], output_names=list(names)
    )

  def least_versions(self, path):
    """The oldest ONNX Runtime seen to run the file's opset, see `formats`."""
    model = self.require("onnx").load(str(path), load_external_data=False)
    opset = next(opset.version for opset in model.opset_import if not opset.domain)
    least = next((least for newest, least in _RUNTIMES.items() if opset <= newest), None)
    return {} if least is None else {"onnxruntime": least}

  def read(self, path):
    """Reads the programs of an artifact, see `ProgramFormat`."""
    onnxruntime = self.require("onnxruntime")
    providers = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(str(path), providers=providers)
    found = {output.name for output in session.get_outputs()}
    names = list(names_among(found))

    def run(images):
      return session.run(names, {"images": images})

    run.shapes = {output.name: tuple(output.shape) for output in session.get_outputs()}
    batch = session.get_inputs()[0].shape[0]
    return {batch if isinstance(batch, int) else None: run}


onnx = Onnx()
