import json

import jax
import jax.numpy as jnp
import numpy as np
import pictures
import pytest
import tiny
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.data import transforms
from asvit_jax.data.images import check_files
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.evaluation import prediction
from asvit_jax.evaluation.features import Features, check_path
from asvit_jax.sparsity import complexity

ARCH = tiny.TRAINED
CLASSES = ("ant", "bee", "cat")
NARROW = Preprocessing(crop_ratio=0.9)

pytestmark = pytest.mark.usefixtures("short_ladders")


@pytest.fixture
def images(tmp_path):
  """Paths of five images, wide and high, coloured and grey."""
  return pictures.write_various_images(tmp_path)


def pixels(paths, size):
  """What the network sees, by the transforms of the data pipeline."""
  crops = [transforms.center_crop(Image.open(p).convert("RGB"), size, NARROW) for p in paths]
  return np.stack([np.asarray(crop) for crop in crops])


@pytest.fixture
def network(images):
  """A `Network` that keeps other numbers of patches in each image."""
  normalised = np.asarray(tiny.normalize(pixels(images, ARCH.image_size)))
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), normalised, (0.7, 0.5, 0.3))
  return tiny.network(ARCH, preprocessing=NARROW, classes=CLASSES).with_params(params)


class Packed:
  """What `predict_by_artifact` needs of an `Artifact`, of a network in memory."""

  def __init__(self, network, packed_sizes):
    self.arch, self.preprocessing = network.arch, network.preprocessing
    self.classes, self.packed_sizes = network.classes, packed_sizes
    self.network, self.seen = network, []

  def __call__(self, images):
    self.seen.append(len(images))
    outputs = self.network(images, "masked")
    return outputs.logits, outputs.kept


def test_predictions_are_those_of_the_network_image_by_image(images, network):
  outputs = tiny.run_masked(ARCH, network.params, tiny.normalize(pixels(images, 16)))
  probabilities = np.asarray(jax.nn.softmax(outputs.logits))
  results = prediction.predict(network, images)
  assert [r["file"] for r in results] == [str(p) for p in images]
  assert len(np.unique(np.asarray(outputs.kept), axis=0)) > 2
  gmacs = complexity.gmacs(ARCH, outputs.kept)
  for i, result in enumerate(results):
    labels = [answer["label"] for answer in result["top5"]]
    assert labels == np.argsort(-probabilities[i]).tolist()  # three classes: all of them
    found = [answer["probability"] for answer in result["top5"]]
    np.testing.assert_allclose(found, probabilities[i][labels], atol=1e-5)
    assert sum(found) == pytest.approx(1)
    assert [a["class"] for a in result["top5"]] == [CLASSES[k] for k in labels]
    assert result["kept"] == outputs.kept[i].tolist()
    assert result["gmacs"] == pytest.approx(float(gmacs[i]))
  json.dumps(results)


def test_the_five_most_probable_classes_come_best_first():
  logits = np.array([0.0, 3.0, -1.0, 900.0, 1.0, 899.0, 2.0], np.float32)
  top5 = prediction._top5(logits, None)
  assert [answer["label"] for answer in top5] == [3, 5, 1, 6, 4]
  expected = [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0, 0, 0]
  np.testing.assert_allclose([answer["probability"] for answer in top5], expected, atol=1e-5)
  assert all(answer.keys() == {"label", "probability"} for answer in top5)


@pytest.mark.parametrize(
  ("sizes", "runs"), [((), [3]), ((2,), [2, 1]), ((1, 2), [2, 1]), ((4,), [3]), ((1,), [1, 1, 1])]
)
def test_artifacts_get_their_largest_batches_and_the_rest(images, network, sizes, runs):
  alone = [prediction.predict(network, [p], "masked")[0] for p in images[:3]]
  artifact = Packed(network, sizes)
  results = prediction.predict_by_artifact(artifact, images[:3])
  assert artifact.seen == runs
  for ours, theirs in zip(results, alone, strict=True):
    assert (ours["file"], ours["kept"]) == (theirs["file"], theirs["kept"])
    assert [a["label"] for a in ours["top5"]] == [a["label"] for a in theirs["top5"]]
    for a, b in zip(ours["top5"], theirs["top5"], strict=True):
      assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_more_images_than_a_batch_go_in_several(images, network, monkeypatch):
  monkeypatch.setattr(prediction, "BATCH", 2)
  results = prediction.predict(network, images, "masked")
  assert [result["file"] for result in results] == [str(path) for path in images]
  outputs = tiny.run_masked(ARCH, network.params, tiny.normalize(pixels(images, 16)))
  assert [result["kept"] for result in results] == np.asarray(outputs.kept).tolist()


def test_a_network_without_thresholds_keeps_nothing_to_tell(images, network):
  result = prediction.predict(network.dense, images[:1])[0]
  assert (result["kept"], result["gmacs"]) == ([], complexity.dense_gmacs(ARCH))
  normalised = tiny.normalize(pixels(images[:1], 16))
  logits = tiny.run_dense(ARCH.dense, network.dense.params, normalised).logits
  best = float(jnp.max(jax.nn.softmax(logits)))
  assert result["top5"][0]["probability"] == pytest.approx(best, abs=1e-5)


def test_an_image_cut_short_is_named_when_it_is_decoded(images, network):
  images[0].write_bytes(images[0].read_bytes()[:-600])
  check_files(images)  # its header is whole
  with pytest.raises(InputError, match=r"0\.png is not a readable image"):
    prediction.predict(network, images)


@pytest.mark.parametrize(("few", "expected"), [(5, None), (6, "masked")])
def test_a_few_images_run_masked_which_compiles_sooner(images, network, few, expected, monkeypatch):
  seen = []

  def call(self, images, execution=None, tokens=False):
    seen.append(execution)
    return outputs

  outputs = network(pixels(images, ARCH.image_size), "masked")
  monkeypatch.setattr(prediction, "FEW", few)
  monkeypatch.setattr(type(network), "__call__", call)
  prediction.predict(network, images)
  prediction.predict(network.dense, images)
  prediction.predict(network, images, "packed")
  assert seen == [expected, None, "packed"]


@pytest.mark.parametrize("execution", [None, "packed", "dense"])
def test_features_are_the_tokens_their_places_and_what_decided(
  images, network, execution, monkeypatch, tmp_path
):
  monkeypatch.setattr(prediction, "BATCH", 2)  # the third batch is half full
  features = Features(images)
  results = prediction.predict(network, images, execution, features)
  features.save(tmp_path / "f.npz")
  found = dict(np.load(tmp_path / "f.npz"))
  normalised = tiny.normalize(pixels(images, 16))
  run = tiny.run_dense if execution == "dense" else tiny.run_masked
  expected = run(ARCH, network.params, normalised)
  assert found["files"].tolist() == [str(path) for path in images]
  assert found["kept"].tolist() == [result["kept"] for result in results]
  assert (found["tokens"].shape, found["tokens"].dtype) == ((5, 17, 12), np.float32)
  for i, (tokens, positions) in enumerate(zip(found["tokens"], found["positions"], strict=True)):
    there = positions >= 0
    places = np.flatnonzero(expected.positions[i] >= 0)
    assert sorted(positions[there]) == places.tolist()
    np.testing.assert_allclose(tokens[there], expected.tokens[i][positions[there]], atol=1e-4)
    assert not tokens[~there].any()
  np.testing.assert_array_equal(found["sources"], expected.sources)
  if execution == "packed":
    assert "scores" not in found
    return
  assert found["scores"].shape == (5, 0 if execution == "dense" else 3, 16)
  np.testing.assert_array_equal(found["positions"], expected.positions)
  for stage in range(found["scores"].shape[1]):
    present = np.asarray(expected.keep[:, stage - 1] > 0) if stage else np.ones((5, 16), bool)
    np.testing.assert_array_equal(np.isnan(found["scores"][:, stage]), ~present)
    kept = found["scores"][:, stage] > network.params["thresholds"][stage]
    np.testing.assert_array_equal(kept, expected.keep[:, stage] > 0)


def test_features_that_could_not_be_written_are_refused(tmp_path):
  with pytest.raises(InputError, match=r"--features .* is a directory: give the name of a file"):
    check_path(tmp_path)
  (tmp_path / "file").touch()
  with pytest.raises(InputError, match=r"cannot write to the directory of --features"):
    check_path(tmp_path / "file" / "f.npz")
