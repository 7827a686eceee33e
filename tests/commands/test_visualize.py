import json

import numpy as np
import pytest
import safetensors.numpy
import tiny
from command_lines import run
from pictures import metrics_lines, write_images
from PIL import Image

from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.vit import without_thresholds
from asvit_jax.weights.names import to_timm

ARCH = tiny.TRAINED


def write_weights(path, params):
  """As others write them: they do not say what they are of."""
  safetensors.numpy.save_file({k: np.asarray(v) for k, v in to_timm(params).items()}, path)
  return path


@pytest.fixture(scope="module")
def params():
  """Thresholds among them prune."""
  images = tiny.images(ARCH, 6)
  return tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3))


@pytest.fixture
def config(folder, tiny_variant, tmp_path):
  """A config file of the variant "tiny"."""
  file = tmp_path / "config.py"
  file.write_text(f"import tiny\ndef get_config():\n  return tiny.config({str(folder)!r})\n")
  return file


@pytest.fixture
def weights(params, tmp_path):
  return write_weights(tmp_path / "tiny.safetensors", params)


@pytest.fixture
def draw(tmp_path):
  """The command as a function of its flags, by default with a picture to write."""

  def draw(*paths, **given):
    given = {"out": tmp_path / "out" / "picture.png"} | given
    arguments = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return run("visualize", *arguments, *paths)

  return draw


def test_files_or_images_of_the_split_are_drawn(config, weights, draw, tmp_path):
  files = write_images(tmp_path, 2, 20)
  sizes = {}
  for paths, given, count in ((files, {}, 2), ((), {"count": 2}, 2), ((), {"count": 32}, 10)):
    result = draw(*paths, config=config, weights=weights, **given)
    assert result["images"] == count  # ten are all there are
    with Image.open(result["out"]) as picture:
      assert picture.format == "PNG"
      sizes[count] = picture.size
  assert sizes[10][1] > 4 * sizes[2][1]


def test_the_scores_of_one_file_are_drawn(config, weights, draw, tmp_path):
  (path,) = write_images(tmp_path, 1, 20)
  tokens = draw(path, config=config, weights=weights)
  result = draw(path, config=config, weights=weights, scores=True, out=tmp_path / "scores.png")
  assert result == {"out": str(tmp_path / "scores.png"), "images": 1}
  with Image.open(result["out"]) as picture, Image.open(tokens["out"]) as row:
    assert picture.format == "PNG"
    # Three rows of as many columns as the one row of the kept tokens.
    assert picture.width / picture.height < row.width / row.height / 2


def test_the_curves_of_a_workdir_are_drawn(folder, tiny_variant, draw, tmp_path):
  identity.save(tiny.plan_of(folder), tmp_path)
  text = "".join(json.dumps(line) + "\n" for line in metrics_lines(pruned=False))
  (tmp_path / "metrics.jsonl").write_text(text)
  result = draw(workdir=tmp_path, curves=True)
  assert result["steps"] == 100
  with Image.open(result["out"]) as picture:
    assert picture.format == "PNG"


def test_errors_say_what_to_do(config, weights, params, folder, draw, tmp_path):
  dense = write_weights(tmp_path / "dense.safetensors", without_thresholds(params))
  text = tmp_path / "text.png"
  text.write_text("not an image")
  (tmp_path / "file").touch()
  empty = tmp_path / "empty"
  identity.save(tiny.plan_of(folder), empty)
  (empty / "metrics.jsonl").touch()
  good = dict(config=config, weights=weights)
  cases = [
    (dict(good, out=None), (), "--out"),
    (dict(good, out="picture.jpg"), (), "picture.jpg.*png"),
    (dict(good, out=tmp_path / "file" / "p.png"), (), "cannot write --out to"),
    (dict(good, weights=dense), (), "dense.safetensors has no thresholds.*--calibrate"),
    (dict(good, count=0), (), "0 images: expected 1 to"),
    (dict(good, count=1000), (), "1000 images: expected 1 to"),
    (good, [tmp_path / "missing.png"], "missing.png cannot be read"),
    (good, [text], "text.png is not a readable image"),
    (dict(config=config), (), "either --workdir or --weights"),
    (dict(good, workdir=tmp_path), (), "either --workdir or --weights"),
    (dict(weights=weights), (), "--weights needs --config"),
    (dict(workdir=tmp_path / "nowhere"), (), "nowhere is not a workdir"),
    (dict(config=config, workdir=tmp_path / "nowhere"), (), "nowhere is not a workdir"),
    (dict(workdir=tmp_path / "nowhere", curves=True), (), "nowhere has no metrics"),
    (dict(workdir=empty, curves=True), (), "empty.*no training metrics"),
    (dict(good, curves=True), (), "give --workdir"),
    (dict(workdir=empty, curves=True, scores=True), (), "--curves and --scores are two pictures"),
    (dict(good, scores=True), (), "--scores draws one image file: 0 were given"),
    (dict(good, scores=True), ["a.png", "b.png"], "--scores draws one image file: 2 were given"),
    (dict(good, scores=True), [text], "text.png is not a readable image"),
    (dict(good, weights=dense, scores=True), [text], "dense.safetensors has no thresholds"),
  ]
  for given, paths, message in cases:
    with pytest.raises(InputError, match=message):
      draw(*paths, **given)
  assert not (tmp_path / "out").exists()
