"""ONNX artifacts that compute the tokens that an image keeps, and no others."""

import json

import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.evaluation.prediction import predict_by_artifact
from asvit_jax.export import verification
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.export.formats import FORMATS

KINDS = {
  "drop": {},
  "merge": dict(reduction="merge_tokens", score="merge_cost", layer_scale=True),
  "avg": dict(class_token=False, pool="avg", reduction="merge", score="attention_novelty"),
  "map": dict(class_token=False, pool="map", activation="quick_gelu"),
  "registers": dict(registers=4, reduction="merge", score="attention_novelty"),
  "two heads": dict(dist_token=True, dist_head=True),
  "lv": tiny.LV | dict(reduction="merge", score="attention_novelty", count_multiple=4),
}
needs_onnx = pytest.mark.external


def _network(kind):
  arch = tiny.arch(**KINDS[kind])
  images = verification.sample_images(arch.image_size)
  params = tiny.with_thresholds(arch, tiny.params(arch), tiny.normalize(images), (0.8, 0.6, 0.4))
  return tiny.network(arch).with_params(params), images


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
  """(network, its images, path, note) of an artifact with tokens."""
  for library in FORMATS["onnx"].needs:
    pytest.importorskip(library)
  path = tmp_path_factory.mktemp("packed") / "net.onnx"
  network, images = _network(request.param)
  note = network.export(path, "onnx", execution="packed", tokens=True, opset=18)
  return network, images, path, note


@needs_onnx
def test_equals_masked_image_by_image(exported):
  network, images, path, note = exported
  assert note["execution"] == "packed"
  assert note["largest_logit_difference"] <= 2e-5
  artifact = load_artifact(path)
  assert (artifact.execution, artifact.programs.sizes) == ("packed", (1,))
  expected = network(images, "masked")
  logits, kept, tokens, positions, sources = artifact(images, tokens=True, sources=True)
  np.testing.assert_array_equal(kept, expected.kept)
  assert len({tuple(row) for row in kept.tolist()}) > 3  # adaptive
  np.testing.assert_allclose(logits, expected.logits, atol=2e-5)
  np.testing.assert_array_equal(positions, expected.positions)
  np.testing.assert_array_equal(sources, expected.sources)
  there = positions >= 0
  np.testing.assert_allclose(tokens[there], np.asarray(expected.tokens)[there], atol=1e-4)


@needs_onnx
def test_blocks_run_for_kept_tokens_alone(exported):
  import onnx
  import onnxruntime

  network, images, path, _ = exported
  model, prefix = onnx.load(str(path)), network.arch.prefix_tokens
  names = ["rows_0", "rows_1", "rows_2"]
  for name in names:
    model.graph.output.append(
      onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT32, None)
    )
  rows_of = {}
  # Every product with a matrix of the MLP's hidden width: one for each block.
  hidden = network.arch.hidden
  weights = {
    a.name for a in model.graph.initializer if list(a.dims)[-1:] == [hidden] and len(a.dims) == 2
  }
  fed = [n for n in model.graph.node if n.op_type in ("Gemm", "MatMul") and set(n.input) & weights]
  for node in fed:
    model.graph.output.append(
      onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
    )
  session = onnxruntime.InferenceSession(model.SerializeToString())
  for i in range(len(images)):
    found = session.run(["kept", *names, *(n.input[0] for n in fed)], {"images": images[i : i + 1]})
    kept, rows, inputs = found[0][0], found[1:4], found[4:]
    assert [len(r) - prefix for r in rows] == kept.tolist()
    rows_of[i] = sorted({len(a.reshape(-1, a.shape[-1])) for a in inputs})
    expected = {prefix + network.arch.patches, *(prefix + kept).astype(int).tolist()}
    # The last block also runs for what the prediction reads: the class token, or the tokens of both
    # heads.
    read = network.arch.read_tokens
    assert {read, *rows_of[i]} == {read, *expected}
  assert len({tuple(rows) for rows in rows_of.values()}) > 1


@needs_onnx
def test_predictions_run_image_by_image(exported, tmp_path):
  network, _, path, note = exported
  tiny.write_folder(tmp_path, train=1, val=(1, 1, 1))
  files = sorted(tmp_path.glob("val/*/*"))
  results = predict_by_artifact(load_artifact(path), files)
  expected = network(network.read(files), "masked")
  assert [result["kept"] for result in results] == expected.kept.astype(int).tolist()
  path.with_name("net.onnx.json").write_text(json.dumps(note | {"execution": "masked"}))
  with pytest.raises(InputError, match="not that with which it was exported"):
    load_artifact(path)
  path.with_name("net.onnx.json").write_text(json.dumps(note))


@pytest.mark.parametrize("form", ["stablehlo", "savedmodel", "tflite"])
def test_other_formats_refuse_in_one_line(tmp_path, form):
  for library in FORMATS[form].needs:
    pytest.importorskip(library)
  said = (
    f"execution 'packed' of an artifact: expected masked or fixed for the format {form}; .*onnx"
  )
  network, _ = _network("drop")
  with pytest.raises(InputError, match=said):
    network.export(tmp_path / "net", form, execution="packed")
  assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_a_dense_network_has_nothing_to_pack(tmp_path):
  for library in FORMATS["onnx"].needs:
    pytest.importorskip(library)
  network, _ = _network("drop")
  with pytest.raises(InputError, match="has no thresholds"):
    network.dense.export(tmp_path / "net", "onnx", execution="packed")
