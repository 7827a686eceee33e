"""A network of your own goes through every command without a change of the package.

What reads it is told nothing of it: no variant, no config, in other processes and directories.
"""

import json

import jax
import numpy as np
import pytest
import tiny
from command_lines import answer, run
from PIL import Image

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.data.images import load_image
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import create, load

CLASSES = ("ant", "bee", "cat")
ARCH = vit.Architecture(
  width=20,
  heads=5,
  depth=3,
  mlp_ratio=1.5,
  image_size=16,
  patch_size=4,
  classes=3,
  stem="conv",
  norm_epsilon=1e-5,
  qkv_bias=False,
  residual_divisor=1.5,
  prune_before=(1, 2),
)
OWN = Preprocessing(0.8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear")

CONFIG = '''"""Somebody's own recipe."""

from asvit_jax.config import base


def get_config():
  """The config; the width and the blocks to prune before come from the command line."""
  config = base()
  config.update_from_flattened_dict({values!r})
  return config
'''
VALUES = {
  "init_from": "dense.safetensors",
  "budget": 0.6,
  "thresholds": "calibrated",
  "model.variant": "mine",
  "model.num_classes": 3,
  "model.image_size": 16,
  "model.patch_size": 4,
  "model.heads": 5,
  "model.depth": 3,
  "model.mlp_ratio": 1.5,
  "model.stem": "conv",
  "model.norm_epsilon": 1e-5,
  "model.qkv_bias": False,
  "model.residual_divisor": 1.5,
  "data.dir": "images",
  "data.crop_ratio": OWN.crop_ratio,
  "data.mean": OWN.mean,
  "data.std": OWN.std,
  "data.interpolation": OWN.interpolation,
  "batch_size": 8,
  "total_steps": 2,
  "ema_decay": 0.5,
  "eval.batch_size": 5,
  "eval.every": 2,
  "eval.pictures": 2,
  "log_every": 1,
  "checkpoint_every": 2,
}
FLAGS = ("--config.model.width=20", "--config.model.prune_before=(1,2)")

pytestmark = [pytest.mark.usefixtures("short_ladders"), pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory, short_ladders):
  """A directory with a config file, a data set, a run and its weights in a file."""
  place = tmp_path_factory.mktemp("own")
  (place / "mine.py").write_text(CONFIG.format(values=VALUES))
  tiny.write_folder(place / "images", CLASSES)
  tiny.network(ARCH).dense.save(place / "dense.safetensors")
  with pytest.MonkeyPatch.context() as patched:
    patched.chdir(place)
    run("train", "--config", "mine.py", *FLAGS, "--workdir", "run")
    saved = run("evaluate", "--workdir", "run", "--save-weights", "saved.safetensors")
  (place / "evaluation.json").write_text(json.dumps(saved))
  return place


@pytest.fixture
def here(place, monkeypatch):
  monkeypatch.chdir(place)
  assert "mine" not in vit.VARIANTS
  return place


@pytest.fixture(scope="module")
def paths(place):
  """Images of other sizes than the network's."""
  rng = np.random.default_rng(3)
  paths = [place / f"{i}.png" for i in range(2)]
  for path, shape in zip(paths, [(20, 26, 3), (40, 31, 3)], strict=True):
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
  return paths


@pytest.fixture(scope="module")
def expected(place, paths):
  """What the network says of the images, by hand."""
  network = load(place / "run")
  pixels = np.stack([load_image(path, ARCH.image_size, OWN) for path in paths])
  outputs = tiny.run_masked(ARCH, network.params, OWN.normalize(pixels))
  return np.asarray(jax.nn.softmax(outputs.logits)), np.asarray(outputs.kept)


def assert_expected(result, expected):
  """Predictions are those, with names of classes."""
  for said, probabilities, kept in zip(result["predictions"], *expected, strict=True):
    assert said["kept"] == kept.astype(int).tolist()
    best = np.argsort(-probabilities)
    assert [entry["class"] for entry in said["top5"]] == [CLASSES[label] for label in best]
    found = [entry["probability"] for entry in said["top5"]]
    np.testing.assert_allclose(found, probabilities[best], atol=1e-4)


def test_runs_and_files_say_all_that_the_config_said(here):
  for source in ("run", "saved.safetensors"):
    network = load(source)
    assert (network.arch, network.variant, network.classes) == (ARCH, "mine", CLASSES)
    assert network.preprocessing == OWN
    assert network.prunes


def test_evaluate_needs_no_more_than_the_run_or_the_config_of_the_file(here):
  before = json.loads((here / "evaluation.json").read_text())
  given = ("--config", "mine.py", *FLAGS, "--weights", "saved.safetensors")
  result = run("evaluate", *given)
  del before["images_per_s"], result["images_per_s"]
  assert result == before
  assert (result["images"], result["execution"], len(result["kept"])) == (10, "packed", 2)
  assert result["share"] < 1


@pytest.mark.parametrize("source", [("--workdir", "run"), ("--weights", "saved.safetensors")])
def test_predict_needs_no_config(here, paths, expected, source):
  assert len(np.unique(expected[1])) > 1
  for execution in ((), ("--execution", "masked")):
    assert_expected(run("predict", *source, *execution, *paths), expected)


def test_predict_needs_no_config_in_another_process_and_directory(place, paths, expected, tmp_path):
  weights = place / "saved.safetensors"
  given = ("predict", "--weights", weights, "--execution", "masked", *paths)
  assert_expected(answer("-m", "asvit_jax", *given, cwd=tmp_path), expected)


@pytest.mark.parametrize("source", [("--workdir", "run"), ("--weights", "saved.safetensors")])
def test_an_artifact_of_it_is_run_by_itself(here, paths, expected, tmp_path, source):
  out = tmp_path / "mine.zip"
  note = run("export", *source, "--format", "stablehlo", "--batch", 2, "--out", out)
  assert (note["variant"], note["classes"], note["prune_before"]) == ("mine", list(CLASSES), [1, 2])
  assert note["budget"] == (0.6 if "run" in source else None)
  assert vit.Architecture.from_json(note["architecture"], "note") == ARCH
  assert_expected(run("predict", "--artifact", out, *paths), expected)
  if "run" in source:
    given = ("predict", "--artifact", out, *paths)
    assert_expected(answer("-m", "asvit_jax", *given, cwd=tmp_path), expected)


def test_visualize_draws_it(here, paths, expected, tmp_path):
  out = tmp_path / "tokens.png"
  for source in (("--workdir", "run"), ("--weights", "saved.safetensors")):
    assert run("visualize", *source, "--out", out, *paths) == {"out": str(out), "images": 2}
  assert run("visualize", "--workdir", "run", "--count", 3, "--out", out)["images"] == 3
  curves = run("visualize", "--workdir", "run", "--curves", "--out", tmp_path / "curves.png")
  assert curves["steps"] == 2
  picture = tmp_path / "p.png"
  result = run("predict", "--weights", "saved.safetensors", "--picture", picture, *paths)
  assert_expected(result, expected)
  assert picture.is_file()


def test_a_config_of_another_network_is_refused(here, paths):
  given = ("--config", "mine.py", *FLAGS, "--config.model.heads=4", "--weights")
  with pytest.raises(InputError, match="it has heads 5, not 4"):
    run("predict", *given, "saved.safetensors", *paths)


def test_an_unknown_name_alone_says_what_is_missing(here):
  with pytest.raises(InputError, match=r"'mine' is not known.*model\.width, model\.prune_before"):
    run("train", "--config", "mine.py", "--workdir", "other")
  assert not (here / "other").exists()


def test_its_dense_weights_are_pruned_elsewhere_by_flags_alone(here, paths):
  given = ("--config", "mine.py", FLAGS[0], "--config.model.prune_before=(2,)")
  given += ("--weights", "dense.safetensors", "--calibrate", 0.8)
  result = run("evaluate", *given, "--save-weights", "elsewhere.safetensors")
  assert result["share"] == pytest.approx(0.8, rel=2e-2)
  assert load("elsewhere.safetensors").arch.prune_before == (2,)


def test_a_network_made_in_python_is_a_weights_file_like_any_other(tmp_path, paths):
  network = create(ARCH, preprocessing=OWN).dense
  network.save(tmp_path / "w.safetensors")
  result = run("predict", "--weights", tmp_path / "w.safetensors", *paths)
  pixels = np.stack([load_image(path, ARCH.image_size, OWN) for path in paths])
  labels = np.asarray(network(pixels).logits).argmax(axis=1).tolist()
  assert [said["top5"][0]["label"] for said in result["predictions"]] == labels
  assert all("class" not in said["top5"][0] for said in result["predictions"])


def test_a_format_and_a_network_without_a_name_are_taken(tmp_path):
  network = create(ARCH, preprocessing=OWN)
  network.save(tmp_path / "w.safetensors")
  form, out = "asvit_jax.export.formats.safetensors:safetensors", tmp_path / "out.safetensors"
  note = run("export", "--weights", tmp_path / "w.safetensors", "--format", form, "--out", out)
  assert (note["format"], note["variant"], note["out"]) == (form, "", str(out))
  assert load(out).arch == ARCH
