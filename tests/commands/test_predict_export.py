"""`predict` and `export` as users run them."""

import dataclasses

import numpy as np
import pictures
import pytest
import safetensors.numpy
import tiny
from command_lines import answer, assert_one_error, call, run
from PIL import Image

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.weights.names import to_timm

CONFIG = ("--config", "configs/digits.py")


@pytest.fixture
def images(tmp_path):
  """Paths of five images, wide and high, coloured and grey."""
  return pictures.write_various_images(tmp_path)


@pytest.fixture(scope="module")
def digits_weights(tmp_path_factory):
  """(dense, pruned): weights files of random networks of the variant "digits".

  As others write them: they do not say what they are of.
  """
  root = tmp_path_factory.mktemp("digits")
  arch = vit.VARIANTS["digits"]
  images = tiny.images(arch, 4)
  pruned = tiny.with_thresholds(arch, tiny.params(arch), images, (0.7, 0.5, 0.3))
  files = {"dense": tiny.params(arch.dense), "pruned": pruned}
  return [write_weights(root / f"{name}.safetensors", files[name]) for name in files]


def write_weights(path, params):
  safetensors.numpy.save_file({k: np.asarray(v) for k, v in to_timm(params).items()}, path)
  return path


@pytest.mark.slow
def test_what_export_writes_predict_reads(tmp_path, images, digits_weights):
  out = tmp_path / "digits.zip"
  source = (*CONFIG, "--weights", digits_weights[0])
  note = run("export", *source, "--format", "stablehlo", "--out", out)
  assert (note["out"], note["format"], note["variant"]) == (str(out), "stablehlo", "digits")
  assert note["classes"] == [str(digit) for digit in range(10)]
  assert note["prune_before"] == []  # these weights prune nowhere, though the variant could
  answers = [
    answer("predict.py", "--artifact", out, *images)["predictions"],
    run("predict", *source, *images)["predictions"],
  ]
  assert [answer["file"] for answer in answers[0]] == [str(path) for path in images]
  for ours, theirs in zip(*answers, strict=True):
    assert [a["class"] for a in ours["top5"]] == [a["class"] for a in theirs["top5"]]
    for a, b in zip(ours["top5"], theirs["top5"], strict=True):
      assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
  with pytest.raises(InputError, match="--artifact excludes other inputs"):
    run("predict", "--artifact", out, "--execution", "masked", images[0])


def test_predict_draws_the_tokens_that_it_reports(tmp_path, images, digits_weights):
  picture = tmp_path / "tokens.png"
  source = (*CONFIG, "--weights", digits_weights[1])
  results = run("predict", *source, "--execution=masked", "--picture", picture, *images[:2])[
    "predictions"
  ]
  assert [len(result["kept"]) for result in results] == [3, 3]
  assert all(0 <= k <= 64 for result in results for k in result["kept"])
  assert Image.open(picture).size[0] > 100


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (("predict.py",), "0 positional arguments"),
    (("predict.py", "none.jpg"), "image none.jpg cannot be read"),
    (("predict.py", "none.jpg", ""), "image 2 of 2 is empty, '': give the path of an image"),
    (("export.py", "--format=onnx"), "out"),
    (("export.py", "--format=papyrus", "--out=x"), "safetensors"),
  ],
  ids=["no image", "no such image", "no name", "no out", "unknown format"],
)
def test_bad_input_to_the_tools_is_one_error(arguments, said):
  assert_one_error(call(*arguments), said)


def test_files_that_are_no_images_are_named_before_weights_are_read(images, tmp_path):
  text = tmp_path / "text.jpg"
  text.write_text("no image")
  for bad, said in (
    (tmp_path / "none.jpg", "No such file"),
    (text, "no known image format"),
    (tmp_path, "Is a directory"),
  ):
    with pytest.raises(InputError, match=rf"image {bad} cannot be read \({said}"):
      run("predict", "--weights", "none.safetensors", *images, bad)
  with pytest.raises(InputError, match=r"none\.safetensors: no such file"):
    run("predict", "--weights", "none.safetensors", *images)


@pytest.mark.parametrize("flags", [("--picture", "p.png"), ("--execution", "packed")])
def test_what_needs_thresholds_says_so(repository, images, digits_weights, flags):
  config = ("--config", repository / "configs" / "digits.py")
  with pytest.raises(InputError, match="the weights have no thresholds"):
    run("predict", *config, "--weights", digits_weights[0], *flags, images[0])


def test_names_of_another_number_of_classes_than_the_networks_are_refused(
  repository, images, digits_weights, tmp_path
):
  """Three directories for a network of ten classes, and ten in another order than its own."""
  root = tiny.write_folder(tmp_path / "images", train=1, val=(1,))
  config = ("--config", repository / "configs" / "digits.py", "--config.data.name=folder")
  weights = (*config, f"--config.data.dir={root}", "--weights")
  for command in (("predict", *images), ("export", "--format=safetensors", f"--out={tmp_path}/x")):
    with pytest.raises(InputError, match=r"3 names .*\(ant, bee, cat\).* which has 10 classes"):
      run(command[0], *weights, digits_weights[0], *command[1:])
  with pytest.raises(InputError, match=r"has 3 classes, but model\.num_classes is 10"):
    run("evaluate", *weights, digits_weights[0])
  names = [str(i) for i in range(10)]
  tiny.write_folder(tmp_path / "ten", names, train=1, val=(1,))
  network = load(digits_weights[0], "digits")
  named = dataclasses.replace(network, classes=(*names[:8], "9", "8"))
  named.save(tmp_path / "named.safetensors")
  with pytest.raises(InputError, match="label 8 is '8' in the data and '9' in the network"):
    run(
      *("evaluate", *config, f"--config.data.dir={tmp_path / 'ten'}"),
      *("--weights", tmp_path / "named.safetensors"),
    )


def test_a_place_that_cannot_be_written_is_found_before_weights_are_read(repository, tmp_path):
  config = ("--config", repository / "configs" / "digits.py", "--weights", "none.safetensors")
  file = tmp_path / "file"
  file.touch()
  for form, out, said in (
    ("stablehlo", tmp_path, "is a directory: give the name of a file"),
    ("savedmodel", file, "is a file: a SavedModel is a directory"),
  ):
    with pytest.raises(InputError, match=said):
      run("export", *config, "--format", form, "--out", out)
