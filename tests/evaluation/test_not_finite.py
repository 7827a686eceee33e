"""What a network says that is not a number is an error, not an accuracy, a count or a class."""

import json

import jax.numpy as jnp
import numpy as np
import pictures
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.data import sources
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.evaluation import accuracy, prediction
from asvit_jax.evaluation.accuracy import evaluate, evaluate_each
from asvit_jax.export.artifacts import Artifact, load_artifact

ARCH = tiny.TRAINED
SAID = r"the prediction for .* is not finite \(NaN or infinite\)"


def spoiled(value, leaf="cls_token"):
  """A dense network, and one that prunes, with parameters that give no numbers."""
  network = tiny.network(ARCH, preprocessing=Preprocessing(crop_ratio=1.0))
  params = network.params | {leaf: jnp.full_like(network.params[leaf], value)}
  return [network.with_params(params).dense, network.with_params(params)]


@pytest.fixture
def images(tmp_path):
  return pictures.write_various_images(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_predictions_that_are_not_finite_are_refused(images, value):
  for network in spoiled(value):
    with pytest.raises(InputError, match=SAID):
      prediction.predict(network, images)


def test_padding_does_not_count(images):
  network = tiny.network(ARCH).dense

  class Padded:
    arch, preprocessing, classes, packed_sizes = ARCH, network.preprocessing, None, (8,)

    def __call__(self, images):
      logits = np.zeros((8, 3), np.float32)
      logits[len(images) :] = np.nan
      return logits, np.zeros((8, 0), np.float32)

  results = prediction.predict_by_artifact(Padded(), images)
  assert len(results) == len(images)
  json.dumps(results, allow_nan=False)
  assert prediction.predict(network, []) == []


def test_an_artifact_that_says_nothing_is_refused(tmp_path, images, monkeypatch):
  network = tiny.network(ARCH).dense
  network.export(tmp_path / "a.zip", "stablehlo")
  artifact = load_artifact(tmp_path / "a.zip")
  programs = artifact.programs.by_size
  assert prediction.predict_by_artifact(artifact, images)

  def run(images):
    found = [np.zeros((len(images), 3), np.float32), np.zeros((len(images), 0), np.float32)]
    found[0][1] = np.nan
    return found

  monkeypatch.setitem(programs, None, run)
  with pytest.raises(InputError, match="programs return logits that are not finite"):
    prediction.predict_by_artifact(artifact, images)


@pytest.mark.parametrize("broken", [0, 1], ids=["logits", "kept"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pruned_artifact_whose_outputs_are_not_finite_is_refused(images, broken, value):
  class Programs:
    packed_sizes = (4,)

    def __call__(self, images):
      found = [np.zeros((len(images), 3), np.float32), np.ones((len(images), 3), np.float32)]
      if self.fails:
        found[broken][-1] = value  # as a count it became -9223372036854775808
      return found

  programs, note = Programs(), {"prune_before": ARCH.prune_before}
  artifact = Artifact(programs, note, ARCH, Preprocessing(), None)
  programs.fails = False
  assert [r["kept"] for r in prediction.predict_by_artifact(artifact, images)] == 5 * [[1, 1, 1]]
  programs.fails = True
  with pytest.raises(InputError, match=f"{('logits', 'kept')[broken]} that are not finite"):
    prediction.predict_by_artifact(artifact, images)


def test_an_evaluation_of_what_is_not_finite_has_no_accuracy(folder, tmp_path, monkeypatch):
  config = tiny.config(folder, **{"data.crop_ratio": 1.0})
  source = sources.open_source(config.data, "val")
  good = tiny.network(ARCH.dense, preprocessing=Preprocessing(crop_ratio=1.0))
  bad = spoiled(np.nan)[0]
  assert evaluate(good, config, source)["images"] == len(source)
  with pytest.raises(InputError, match=SAID):
    evaluate(bad, config, source, per_image=tmp_path / "each.jsonl")
  assert not (tmp_path / "each.jsonl").exists()
  passed = accuracy.one_pass.run

  def without_files(*args):  # as of several hosts
    every, seconds = passed(*args)
    return [{k: v for k, v in rows.items() if k != "file"} for rows in every], seconds

  monkeypatch.setattr(accuracy.one_pass, "run", without_files)
  with pytest.raises(InputError, match="the prediction for image 0 of the split is not finite"):
    evaluate(bad, config, source)
  # In training a step that diverges is dealt with by the run.
  assert evaluate_each([bad], config, source)[0]["images"] == len(source)


def test_scores_that_are_not_finite_set_no_thresholds():
  pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
  for network in spoiled(np.nan):
    with pytest.raises(InputError, match="scores of these images are not finite"):
      network.calibrate(pixels, 0.7)
