import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny

from asvit_jax import artifacts, complexity, export, packing, prediction, weights
from asvit_jax.data import transforms
from asvit_jax.errors import InputError

ARCH = tiny.TRAINED
NAMES = {
  "safetensors": "w.safetensors",
  "stablehlo": "net.stablehlo.zip",
  "savedmodel": "net",
  "onnx": "net.onnx",
}
CLASSES = ["ant", "bee", "cat"]

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture(scope="module")
def network():
  """(parameters, images): thresholds prune differently in each image."""
  pixels = export._test_images(ARCH.image_size)
  normalised = np.asarray(transforms.normalize(pixels))
  return tiny.with_thresholds(ARCH, tiny.params(ARCH), normalised, (0.7, 0.5, 0.3)), pixels


@pytest.fixture(scope="module")
def description():
  config = tiny.config("", **{"budget": 0.6, "data.crop_ratio": 0.9})
  return export.describe(config, ARCH, CLASSES)


@pytest.fixture(scope="module")
def exported(network, description, tmp_path_factory):
  """Function of a format that exports the network once: (path, what `export` returned)."""
  done = {}

  def of(form):
    for library in export._NEEDS.get(form, ()):
      pytest.importorskip(library)
    if form not in done:
      path = tmp_path_factory.mktemp(form) / "new" / NAMES[form]
      with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packing, "LENGTHS", 2)
        patched.setattr(packing, "WIDTHS", 2)
        summary = export.export(ARCH, network[0], path, form, description, (1, 3))
      done[form] = path, summary
    return done[form]

  return of


def in_memory(params, images):
  outputs = tiny.run_masked(ARCH, params, transforms.normalize(images))
  return np.asarray(outputs.logits), np.asarray(outputs.kept)


@pytest.mark.parametrize("form", ["stablehlo", "savedmodel", "onnx"])
def test_an_artifact_agrees_with_memory_at_any_number_of_images(exported, network, form):
  path, summary = exported(form)
  params, images = network
  run, arch, note, sizes = prediction.from_artifact(path)
  assert arch == ARCH
  assert sizes == (() if form == "onnx" else (1, 3))
  assert note == summary
  logits, kept = in_memory(params, images)
  assert len(np.unique(kept, axis=0)) > 2
  for count in (1, 2, 3, 5):  # the packed programs are of 1 and 3
    ours = run(images[-count:])
    np.testing.assert_allclose(ours[0], logits[-count:], atol=1e-4)
    np.testing.assert_array_equal(ours[1], kept[-count:])
    assert (ours[0].dtype, ours[1].dtype) == (np.float32, np.float32)
  assert 0 < summary["largest_logit_difference"] < 1e-4


def test_packed_programs_run_at_their_sizes_and_the_masked_one_at_all_others():
  calls = []

  def program(name):
    return lambda images: (calls.append(name), (images, images))[1]

  artifact = artifacts.Artifact({size: program(size) for size in (32, None, 1)})
  for count in (1, 2, 32, 33):
    artifact(np.zeros(count))
  assert calls == [1, None, 32, None]
  assert artifact.packed_sizes == [1, 32]


@pytest.mark.parametrize("form", export.FORMATS)
def test_the_note_says_what_an_artifact_is(exported, form):
  path, summary = exported(form)
  assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, path.name + ".json"])
  note = json.loads(path.with_name(path.name + ".json").read_text())
  assert note == summary
  said = {"format": form, "variant": "tiny", "budget": 0.6, "image_size": 16, "patch_size": 4}
  said |= {"num_classes": 3, "classes": CLASSES, "prune_before": [1, 2, 3]}
  assert said.items() <= note.items()
  assert note["gmacs_target"] == pytest.approx(0.6 * complexity.dense_gmacs(ARCH))
  assert note["gmacs_dense"] == pytest.approx(complexity.dense_gmacs(ARCH))
  assert note["preprocessing"]["crop_ratio"] == 0.9
  assert note["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
  assert note["versions"]["jax"] == importlib.metadata.version("jax")
  if form == "savedmodel":
    found = {str(p.relative_to(path)): sha256(p) for p in path.rglob("*") if p.is_file()}
    assert {"saved_model.pb", "fingerprint.pb"} <= found.keys()
  else:
    found = sha256(path)
  assert note["sha256"] == found


def sha256(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_are_the_weights_to_the_bit_under_timms_names(exported, network):
  path, summary = exported("safetensors")
  jax.tree.map(np.testing.assert_array_equal, weights.load(ARCH, path), network[0])
  dense = weights.to_timm({k: v for k, v in network[0].items() if k != "thresholds"})
  assert safetensors.numpy.load_file(path).keys() == dense.keys()
  assert summary["largest_logit_difference"] == 0
  with pytest.raises(InputError, match="holds weights only; give it as --weights"):
    prediction.from_artifact(path)


def test_stablehlo_runs_with_jax_alone(exported, network, tmp_path):
  path, _ = exported("stablehlo")
  params, images = network
  np.save(tmp_path / "images.npy", images[:3])
  script = (
    "import io, sys, zipfile, numpy as np, jax\n"
    "from jax import export\n"
    "archive = zipfile.ZipFile(sys.argv[1])\n"
    "weights = dict(np.load(io.BytesIO(archive.read('weights.npz'))))\n"
    "images = np.load('images.npy')\n"
    "for name in ('masked', 'packed_3'):\n"
    "  program = export.deserialize(archive.read(name + '.stablehlo'))\n"
    "  assert set(program.platforms) == {'cpu', 'cuda', 'tpu'}\n"
    "  np.savez(name, **program.call(weights, images))\n"
    "assert not {'asvit_jax', 'flax', 'tensorflow', 'torch'} & set(sys.modules)\n"
  )
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  process = subprocess.run(
    [sys.executable, "-c", script, path],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  logits, kept = in_memory(params, images[:3])
  for name in ("masked", "packed_3"):
    outputs = np.load(tmp_path / f"{name}.npz")
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    np.testing.assert_array_equal(outputs["kept"], kept)


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.parametrize("lv", [False, True], ids=["deit", "lvvit"])
def test_a_dense_network_is_exported_as_one_program(tmp_path, description, form, lv):
  for library in export._NEEDS.get(form, ()):
    pytest.importorskip(library)
  arch = tiny.arch(depth=5, **(tiny.LV if lv else {}))
  params, images = tiny.params(arch.dense), export._test_images(arch.image_size)
  path = tmp_path / NAMES[form]
  export.export(arch, params, path, form, description)
  artifact = artifacts.load(path, form)
  assert artifact.packed_sizes == []
  outputs = tiny.run_dense(arch.dense, params, transforms.normalize(images[:2]))
  logits, kept = artifact(images[:2])
  np.testing.assert_allclose(logits, outputs.logits, atol=2e-4)
  assert kept.shape == (2, 0)


def test_every_program_is_verified_whatever_the_batch_sizes(network, monkeypatch):
  # As many images as the verification has must not keep it from the program for any number.
  count = len(export._test_images(ARCH.image_size))
  reference = export._reference(ARCH)

  def right(images):
    outputs = reference(network[0], images)
    return outputs["logits"], outputs["kept"]

  def wrong(images):
    logits, kept = right(images)
    return logits + 1, kept

  artifact = artifacts.Artifact({count: right, None: wrong})
  monkeypatch.setattr(artifacts, "load", lambda path, form: artifact)
  with pytest.raises(InputError, match="does not do what the network does"):
    export.verify(ARCH, network[0], "net", "stablehlo")


def test_an_artifact_that_keeps_other_tokens_does_not_verify(network, monkeypatch):
  outputs = export._reference(ARCH)(*network)
  artifact = artifacts.Artifact({None: lambda images: (outputs["logits"], outputs["kept"])})
  monkeypatch.setattr(artifacts, "load", lambda path, form: artifact)
  assert export.verify(ARCH, network[0], "net", "onnx") == 0
  more = outputs["kept"].at[2, 1].add(1)
  artifact = artifacts.Artifact({None: lambda images: (outputs["logits"], more)})
  with pytest.raises(InputError, match="1 images keep other tokens"):
    export.verify(ARCH, network[0], "net", "onnx")


def test_a_savedmodel_replaces_an_earlier_one(tmp_path, description):
  pytest.importorskip("tensorflow")
  path = tmp_path / "net"
  path.mkdir()
  (path / "old").write_text("")
  export.export(ARCH, tiny.params(ARCH.dense), path, "savedmodel", description)
  assert not (path / "old").exists()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["net", "net.json"]
  run, *_ = prediction.from_artifact(path)
  assert run(np.zeros((2, 16, 16, 3), np.uint8))[0].shape == (2, 3)
