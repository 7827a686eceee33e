"""Artifacts that keep as many tokens of every image."""

import dataclasses
import json

import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.evaluation.prediction import predict_by_artifact
from asvit_jax.export import verification
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.export.card import card
from asvit_jax.export.formats import FORMATS

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3), reduction="merge", dist_token=True)
NETWORK = tiny.network(ARCH, variant="tiny").with_counts((11, 6, 3))
IMAGES = verification.sample_images(ARCH.image_size)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["stablehlo", "savedmodel", "onnx", "tflite"])
def test_artifacts_do_what_the_network_does(tmp_path, form):
  for library in FORMATS[form].needs:
    pytest.importorskip(library)
  path = tmp_path / "net"
  note = NETWORK.export(path, form, execution="fixed", tokens=True)
  assert (note["execution"], note["counts"]) == ("fixed", [[11, 6, 3]])
  artifact = load_artifact(path)
  assert (artifact.execution, artifact.packed_sizes) == ("fixed", ())
  assert len(artifact.programs.by_size) == 1
  expected = NETWORK(IMAGES, "fixed", tokens=True)
  for count in (3, 8):
    logits, kept, tokens, positions, sources = artifact(IMAGES[:count], True, sources=True)
    np.testing.assert_allclose(logits, expected.logits[:count], atol=1e-4)
    np.testing.assert_array_equal(kept, [[11, 6, 3]] * count)
    np.testing.assert_array_equal(positions, expected.positions[:count])
    np.testing.assert_allclose(tokens, expected.tokens[:count], atol=1e-3)
    np.testing.assert_array_equal(sources, expected.sources[:count])


@pytest.mark.parametrize("execution", tiny.few((None, "fixed"), "fixed"))
def test_a_program_of_an_attention_pooling_takes_any_number_of_images(tmp_path, execution):
  network = tiny.network(tiny.arch(pool="map", class_token=False)).with_counts((11, 6, 3))
  network.export(tmp_path / "net.zip", "stablehlo", execution=execution, batch_sizes=())
  artifact = load_artifact(tmp_path / "net.zip")
  for count in (1, 3):
    expected = network(IMAGES[:count], execution or "masked")
    np.testing.assert_allclose(artifact(IMAGES[:count])[0], expected.logits, atol=1e-4)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
  """(path, note) of a StableHLO artifact."""
  path = tmp_path_factory.mktemp("fixed") / "net.zip"
  return path, NETWORK.export(path, "stablehlo", execution="fixed")


@pytest.mark.slow
def test_predictions_say_what_was_kept(artifact, tmp_path):
  tiny.write_folder(tmp_path, train=1, val=(1, 1, 1))
  files = sorted(tmp_path.glob("val/*/*"))
  results = predict_by_artifact(load_artifact(artifact[0]), files)
  assert {tuple(result["kept"]) for result in results} == {(11, 6, 3)}
  assert {result["gmacs"] for result in results} == {float(NETWORK.gmacs([11.0, 6, 3]))}


def test_the_card_says_so(artifact):
  text = card(artifact[1], "owner/net", "net.zip")
  assert "patches that each stage keeps of every image | 11, 6, 3" in text
  assert "thresholds" not in text


def test_a_changed_note_is_refused(artifact, tmp_path):
  path = tmp_path / "net.zip"
  path.write_bytes(artifact[0].read_bytes())
  for change in ({"counts": [[11, 6, 2]]}, {"execution": "masked"}):
    path.with_name("net.zip.json").write_text(json.dumps(artifact[1] | change))
    with pytest.raises(InputError, match="not that with which it was exported"):
      load_artifact(path)


def test_verification_finds_other_counts(artifact):
  programs = load_artifact(artifact[0]).programs
  other = NETWORK.with_counts((11, 6, 2))
  with pytest.raises(InputError, match="nothing was exported"):
    verification.largest_difference(other, programs, "stablehlo", "fixed")
  assert verification.largest_difference(NETWORK, programs, "stablehlo", "fixed") < 1e-4


@pytest.mark.slow
def test_masked_stays_the_default(tmp_path):
  network = dataclasses.replace(NETWORK, counts=())
  note = network.export(tmp_path / "net.zip", "stablehlo", batch_sizes=[2])
  assert note["execution"] == "masked"
  assert load_artifact(tmp_path / "net.zip").packed_sizes == (2,)


@pytest.mark.parametrize(
  ("network", "form", "execution", "said"),
  [
    (NETWORK.with_counts(()), "stablehlo", "fixed", r"--calibrate BUDGET .*--counts"),
    (NETWORK.dense, "stablehlo", "fixed", "has no thresholds"),
    (NETWORK, "stablehlo", "packed", "execution 'packed' of an artifact: expected masked"),
    (NETWORK, "safetensors", "fixed", "the format safetensors has no option --execution"),
  ],
)
def test_what_cannot_be_is_refused(tmp_path, network, form, execution, said):
  with pytest.raises(InputError, match=said):
    network.export(tmp_path / "net", form, execution=execution)
  assert list(tmp_path.iterdir()) == []
