"""The ONNX model of packed execution: its pieces, joined by the choice of the kept tokens.

The shapes of a piece depend on the number of tokens that the stage before it kept, so each piece is
converted with symbolic sizes. ONNX has an operator for the indices of true values, whose number is
unknown before the run, and JAX has none; these operators stand between the pieces.
"""

import contextlib
import logging
from unittest import mock

import jax
import jax.numpy as jnp

from asvit_jax.export.programs import output_names, pieces_for_one_image


def packed_model(network, tokens, opset):
  """The packed program of a `Network`, for one image, as an ONNX model.

  Args:
    network: a `Network` with thresholds that computes in float32.
    tokens: see `programs.programs`.
    opset: version of the operators, at least 13.
  """
  import onnx

  pieces = pieces_for_one_image(network, tokens)
  counts = [f"tokens_{index}" for index in range(1, len(pieces))]
  # A runtime takes equal names for equal sizes, so each stage has a name of its own.
  counts = jax.export.symbolic_shape(", ".join(counts))
  given, names = [jax.ShapeDtypeStruct((1, *network.arch.image_shape), jnp.uint8)], ["images"]
  models, glue = [], []
  for index, piece in enumerate(pieces):
    leaves, found = jax.tree.flatten(jax.eval_shape(piece, *given))
    outputs = [f"stage_{index}_{i}" for i in range(len(leaves))]
    if index == len(counts):
      outputs = list(output_names(network, tokens))
      piece = _in_order(piece, outputs)
    models.append(_converted(piece, given, names, outputs, opset, f"piece_{index}/"))
    if index == len(counts):
      break
    rows = f"rows_{index}"
    glue.append(_rows(outputs[0], rows))  # the first output is `Scored.keep`
    given = [found.unflatten(leaves), jax.ShapeDtypeStruct((counts[index],), jnp.int32)]
    names = [*outputs, rows]
  graph = onnx.GraphProto(name="packed")
  graph.input.extend(models[0].graph.input)
  graph.output.extend(models[-1].graph.output)
  for model, nodes in zip(models, [*glue, ([], [])], strict=True):
    graph.node.extend(model.graph.node)
    used = {name for node in model.graph.node for name in node.input}
    graph.initializer.extend(a for a in model.graph.initializer if a.name in used)
    graph.value_info.extend(model.graph.value_info)
    graph.node.extend(nodes[0])
    graph.initializer.extend(nodes[1])
  whole = onnx.helper.make_model(graph, opset_imports=models[0].opset_import)
  whole.ir_version = models[0].ir_version
  onnx.checker.check_model(whole)
  return whole


def _converted(piece, given, names, outputs, opset, prefix):
  """The ONNX model of a piece; names other than those of inputs and outputs get the prefix.

  Args:
    piece: function of trees of arrays that returns one.
    given: its arguments, trees of `jax.ShapeDtypeStruct`.
    names: names of the leaves of the arguments.
    outputs: names of the leaves of the result.
    opset: version of the operators.
    prefix: the prefix.
  """
  import jax2onnx
  import onnx

  specs, structure = jax.tree.flatten(tuple(given))
  own = {name: getattr(jnp, name) for name in ("arange", "concatenate")}

  def flat(*arrays):
    # The converter's own versions take no symbolic sizes.
    with mock.patch.multiple(jnp, **own):
      return tuple(jax.tree.leaves(piece(*jax.tree.unflatten(structure, arrays))))

  with _quiet("onnx_ir.serde"):  # it warns of each size computed by the model
    model = jax2onnx.to_onnx(flat, specs, opset=opset, input_names=names, output_names=outputs)
  return onnx.compose.add_prefix(model, prefix, rename_inputs=False, rename_outputs=False)


def _in_order(piece, names):
  """A piece that returns the values of its dictionary in the order of the names."""

  def ordered(*given):
    found = piece(*given)
    return [found[name] for name in names]

  return ordered


def _rows(keep, rows):
  """Nodes and initializers that compute the (m,) int32 indices `rows` of the (1, n) mask `keep`."""
  import numpy as np
  import onnx
  from onnx import helper

  axis, mask, found, flat = (f"{rows}/{name}" for name in ("axis", "mask", "found", "flat"))
  nodes = [
    helper.make_node("Squeeze", [keep, axis], [mask]),
    helper.make_node("NonZero", [mask], [found]),  # (1, m)
    helper.make_node("Squeeze", [found, axis], [flat]),
    helper.make_node("Cast", [flat], [rows], to=onnx.TensorProto.INT32),
  ]
  return nodes, [onnx.numpy_helper.from_array(np.array([0], np.int64), axis)]


@contextlib.contextmanager
def _quiet(name):
  logger = logging.getLogger(name)
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)
