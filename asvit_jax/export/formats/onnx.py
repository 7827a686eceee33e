"""ONNX: ONNX Runtime runs it."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from asvit_jax.export.formats.base import ProgramFormat
from asvit_jax.export.programs import flat_params, program_for_any_number


class Onnx(ProgramFormat):
  """See `formats`; masked at any batch size.

  The converter knows no `lax.switch` of more than two branches, which packed takes.
  """

  name = "onnx"
  needs: ClassVar = {"jax2onnx": "jax2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"}

  def write(self, network, path, batch_sizes):
    """See `formats`."""
    del batch_sizes
    jax2onnx, onnx = self.require("jax2onnx"), self.require("onnx")
    from jax import export

    _, program = program_for_any_number(network)
    flat, shape = flat_params(network), network.arch.image_shape

    def forward(images):
      outputs = program(flat, images)
      return outputs["logits"], outputs["kept"]

    batch = export.symbolic_shape("b")[0]
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    model = jax2onnx.to_onnx(
      forward, [images], input_names=["images"], output_names=["logits", "kept"]
    )
    onnx.save(model, str(path))

  def read(self, path):
    """See `ProgramFormat`."""
    onnxruntime = self.require("onnxruntime")
    providers = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(str(path), providers=providers)
    return {None: lambda images: session.run(["logits", "kept"], {"images": images})}


onnx = Onnx()
