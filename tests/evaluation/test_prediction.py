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
  ("sizes", "runs"), [((), [3]), ((2,), [2, 2]), ((1, 2), [2, 1]), ((4,), [4]), ((1,), [1, 1, 1])]
)
def test_padding_never_changes_a_result(images, network, sizes, runs):
  alone = [prediction.predict(network, [p], "masked")[0] for p in images[:3]]
  artifact = Packed(network, sizes)
  results = prediction.predict_by_artifact(artifact, images[:3])
  assert artifact.seen == runs
  for ours, theirs in zip(results, alone, strict=True):
    assert (ours["file"], ours["kept"]) == (theirs["file"], theirs["kept"])
    assert [a["label"] for a in ours["top5"]] == [a["label"] for a in theirs["top5"]]
    for a, b in zip(ours["top5"], theirs["top5"], strict=True):
      assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_more_images_than_a_batch_go_in_several():
  paths = list(range(70))
  batches = list(prediction._batches(paths, (prediction.BATCH,)))
  assert [(len(batch), size) for batch, size in batches] == [(32, 32), (32, 32), (6, 32)]
  assert [path for batch, _ in batches for path in batch] == paths


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
