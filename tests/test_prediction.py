import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from test_cli import assert_one_error, call

from asvit_jax import artifacts, complexity, packing, prediction, vit, weights
from asvit_jax.data import transforms
from asvit_jax.errors import InputError

ARCH = tiny.TRAINED


@pytest.fixture(autouse=True)
def short_ladders(monkeypatch):
  """Few rungs compile fast; test_packing tries them all."""
  monkeypatch.setattr(packing, "LENGTHS", 2)
  monkeypatch.setattr(packing, "WIDTHS", 2)


@pytest.fixture
def images(tmp_path):
  """Paths of five images, wide and high, coloured and grey."""
  rng = np.random.default_rng(3)
  paths = []
  for i, shape in enumerate([(20, 26, 3), (31, 20, 3), (16, 16), (40, 40, 3), (23, 19, 3)]):
    paths.append(tmp_path / f"{i}.png")
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[-1])
  return paths


def pixels(paths, size, crop_ratio=0.9):
  """What the network sees, by the transforms of the data pipeline."""
  crops = [transforms.center_crop(Image.open(p).convert("RGB"), size, crop_ratio) for p in paths]
  return np.stack([np.asarray(crop) for crop in crops])


def network(paths):
  """Parameters that keep other numbers of patches in each image."""
  normalised = np.asarray(transforms.normalize(pixels(paths, ARCH.image_size)))
  return tiny.with_thresholds(ARCH, tiny.params(ARCH), normalised, (0.7, 0.5, 0.3))


def test_predictions_are_those_of_the_network_image_by_image(images):
  params = network(images)
  outputs = tiny.run_masked(ARCH, params, transforms.normalize(pixels(images, 16)))
  probabilities = np.asarray(jax.nn.softmax(outputs.logits))
  run = prediction.in_memory(ARCH, params)
  results = prediction.predict(run, images, ARCH, 0.9, (), ["ant", "bee", "cat"])
  assert [r["file"] for r in results] == [str(p) for p in images]
  assert len(np.unique(np.asarray(outputs.kept), axis=0)) > 2
  gmacs = complexity.gmacs(ARCH, outputs.kept)
  for i, result in enumerate(results):
    labels = [answer["label"] for answer in result["top5"]]
    assert labels == np.argsort(-probabilities[i]).tolist()  # three classes: all of them
    found = [answer["probability"] for answer in result["top5"]]
    np.testing.assert_allclose(found, probabilities[i][labels], atol=1e-5)
    assert sum(found) == pytest.approx(1)
    assert [a["class"] for a in result["top5"]] == [["ant", "bee", "cat"][k] for k in labels]
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
def test_padding_never_changes_a_result(images, sizes, runs):
  params, seen = network(images), []
  run = prediction.in_memory(ARCH, params, "masked")
  alone = [prediction.predict(run, [p], ARCH, 0.9)[0] for p in images[:3]]

  def counted(batch):
    seen.append(len(batch))
    return run(batch)

  results = prediction.predict(counted, images[:3], ARCH, 0.9, sizes)
  assert seen == runs
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


def test_a_network_without_thresholds_keeps_nothing_to_tell(images):
  params = tiny.params(ARCH.dense)
  result = prediction.predict(prediction.in_memory(ARCH, params), images[:1], ARCH, 0.9)[0]
  assert (result["kept"], result["gmacs"]) == ([], complexity.dense_gmacs(ARCH))
  logits = tiny.run_dense(ARCH.dense, params, transforms.normalize(pixels(images[:1], 16))).logits
  best = float(jnp.max(jax.nn.softmax(logits)))
  assert result["top5"][0]["probability"] == pytest.approx(best, abs=1e-5)


def test_files_that_are_no_images_are_named(images, tmp_path):
  prediction.check_files(images)
  text = tmp_path / "text.jpg"
  text.write_text("no image")
  for bad, said in (
    (tmp_path / "none.jpg", "No such file"),
    (text, "no known image format"),
    (tmp_path, "Is a directory"),
  ):
    with pytest.raises(InputError, match=rf"image {bad} cannot be read \({said}"):
      prediction.check_files([*images, bad])
  with pytest.raises(InputError, match=r"none\.jpg cannot be read"):
    prediction.load_image(tmp_path / "none.jpg", 16, 0.9)


def test_an_image_cut_short_is_named_when_it_is_decoded(images):
  images[0].write_bytes(images[0].read_bytes()[:-600])
  prediction.check_files(images)  # its header is whole
  with pytest.raises(InputError, match=r"0\.png is not a readable image"):
    prediction.predict(lambda batch: None, images, ARCH, 0.9)


def test_an_image_too_large_to_be_one_is_named(images, monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # more than twice as many is an error
  with pytest.raises(InputError, match=r"0\.png"):
    prediction.check_files(images)


def test_an_artifact_without_a_readable_note_is_refused(tmp_path):
  path = tmp_path / "net.onnx"
  with pytest.raises(InputError, match=r"net\.onnx: no such file"):
    prediction.from_artifact(path)
  path.write_bytes(b"anything")
  note = artifacts.note_path(path)
  for content in (None, "{", "[]", "{}", '"text"'):
    if content is not None:
      note.write_text(content)
    with pytest.raises(InputError, match=r"net\.onnx\.json, which says what it is, is missing or"):
      prediction.from_artifact(path)


def test_a_damaged_artifact_and_one_of_another_version_are_refused(tmp_path, tiny_variant):
  path = tmp_path / "net.zip"
  path.write_bytes(b"anything")
  note = {"format": "stablehlo", "variant": "tiny", "image_size": 16, "patch_size": 4}
  artifacts.note_path(path).write_text(json.dumps(note))
  with pytest.raises(InputError, match="cannot be loaded as stablehlo"):
    prediction.from_artifact(path)
  with pytest.raises(InputError, match="'num_classes'"):
    prediction.architecture(note)
  with pytest.raises(InputError, match="'vit_z'"):
    prediction.architecture(note | {"variant": "vit_z"})


@pytest.fixture(scope="module")
def digits_weights(tmp_path_factory):
  """(dense, pruned): weights files of random networks of the variant "digits"."""
  root = tmp_path_factory.mktemp("digits")
  arch = vit.VARIANTS["digits"]
  weights.save(root / "dense.safetensors", tiny.params(arch.dense))
  images = tiny.images(arch, 4)
  pruned = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.5, 0.3))
  weights.save(root / "pruned.safetensors", pruned)
  return root / "dense.safetensors", root / "pruned.safetensors"


def test_what_export_writes_predict_reads(tmp_path, images, digits_weights):
  out = tmp_path / "digits.zip"
  source = ("--config", "configs/digits.py", "--weights", digits_weights[0])
  process = call("export.py", *source, "--format", "stablehlo", "--out", out)
  assert process.returncode == 0, process.stderr
  note = json.loads(process.stdout.splitlines()[-1])
  assert (note["out"], note["format"], note["variant"]) == (str(out), "stablehlo", "digits")
  assert note["classes"] == [str(digit) for digit in range(10)]
  assert note["prune_before"] == []  # these weights prune nowhere, though the variant could
  answers = []
  for given in (("--artifact", out), source):
    process = call("predict.py", *given, *images)
    assert process.returncode == 0, process.stderr
    answers.append(json.loads(process.stdout.splitlines()[-1])["predictions"])
  assert [answer["file"] for answer in answers[0]] == [str(path) for path in images]
  for ours, theirs in zip(*answers, strict=True):
    assert [a["class"] for a in ours["top5"]] == [a["class"] for a in theirs["top5"]]
    for a, b in zip(ours["top5"], theirs["top5"], strict=True):
      assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
  process = call("predict.py", "--artifact", out, "--execution", "masked", images[0])
  assert_one_error(process, "--artifact goes by itself")


def test_predict_draws_the_tokens_that_it_reports(tmp_path, images, digits_weights):
  picture = tmp_path / "tokens.png"
  source = ("--config", "configs/digits.py", "--weights", digits_weights[1])
  process = call("predict.py", *source, "--execution=masked", "--picture", picture, *images[:2])
  assert process.returncode == 0, process.stderr
  results = json.loads(process.stdout.splitlines()[-1])["predictions"]
  assert [len(result["kept"]) for result in results] == [3, 3]
  assert all(0 <= k <= 64 for result in results for k in result["kept"])
  assert Image.open(picture).size[0] > 100


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (("predict.py",), "0 positional arguments"),
    (("predict.py", "none.jpg"), "image none.jpg cannot be read"),
    (("export.py", "--format=onnx"), "out"),
    (("export.py", "--format=tflite", "--out=x"), "safetensors"),
  ],
  ids=["no image", "no such image", "no out", "unknown format"],
)
def test_bad_input_to_the_tools_is_one_error(arguments, said):
  assert_one_error(call(*arguments), said)
