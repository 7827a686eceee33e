import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.export import verification
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.export.formats import FORMATS
from asvit_jax.export.serving import Programs, runs
from asvit_jax.network import load
from asvit_jax.sparsity import complexity
from asvit_jax.weights import to_timm

ARCH = tiny.TRAINED
NAMES = {
  "safetensors": "w.safetensors",
  "stablehlo": "net.stablehlo.zip",
  "savedmodel": "net",
  "onnx": "net.onnx",
  "tflite": "net.tflite",
}
PROGRAMS = ["stablehlo", "savedmodel", "onnx", "tflite"]
PREPROCESSING = Preprocessing(crop_ratio=0.9, interpolation="bilinear")
CLASSES = ("ant", "bee", "cat")

pytestmark = pytest.mark.usefixtures("short_ladders")


@pytest.fixture(scope="module")
def network():
  """Its thresholds prune differently in each of `sample_images`."""
  images = PREPROCESSING.normalize(verification.sample_images(ARCH.image_size))
  params = tiny.with_thresholds(ARCH, tiny.params(ARCH), images, (0.7, 0.5, 0.3))
  fields = dict(preprocessing=PREPROCESSING, classes=CLASSES, variant="tiny")
  return tiny.network(ARCH, **fields).with_params(params)


@pytest.fixture(scope="module")
def images():
  return verification.sample_images(ARCH.image_size)


@pytest.fixture(scope="module")
def exported(network, short_ladders, tmp_path_factory):
  """Function of a format that exports the network once: (path, what `export` returned)."""
  done = {}

  def of(form):
    for library in FORMATS[form].needs:
      pytest.importorskip(library)
    if form not in done:
      path = tmp_path_factory.mktemp(form) / "new" / NAMES.get(form, "net")
      done[form] = path, network.export(path, form, (1, 3), budget=0.6)
    return done[form]

  return of


def in_memory(network, images):
  images = network.preprocessing.normalize(images)
  outputs = tiny.run_masked(network.arch, network.params, images)
  return np.asarray(outputs.logits), np.asarray(outputs.kept)


@pytest.mark.slow
@pytest.mark.parametrize("form", PROGRAMS)
def test_an_artifact_agrees_with_memory_at_any_number_of_images(exported, network, images, form):
  path, note = exported(form)
  artifact = load_artifact(path)
  assert (artifact.arch, artifact.preprocessing) == (ARCH, PREPROCESSING)
  assert artifact.classes == CLASSES
  assert artifact.packed_sizes == (() if form in ("onnx", "tflite") else (1, 3))
  assert artifact.note == note
  logits, kept = in_memory(network, images)
  assert len(np.unique(kept, axis=0)) > 2
  for count in (1, 2, 3, 5):  # the packed programs are of 1 and 3
    ours = artifact(images[-count:])
    np.testing.assert_allclose(ours[0], logits[-count:], atol=1e-4)
    np.testing.assert_array_equal(ours[1], kept[-count:])
    assert (ours[0].dtype, ours[1].dtype) == (np.float32, np.float32)
  assert 0 < note["largest_logit_difference"] < 1e-4


@pytest.mark.parametrize(
  ("sizes", "count", "ran"),
  [
    ((1, 8, 32), 1, [1]),
    ((1, 8, 32), 3, [1, 1, 1]),  # 8 would be more than half of it for nothing
    ((1, 8, 32), 5, [8]),
    ((1, 8, 32), 15, [8, 8]),
    ((1, 8, 32), 16, [32]),
    ((1, 8, 32), 105, [32, 32, 32, 8, 1]),
    ((32,), 2, [32]),
    ((), 7, [7]),
  ],
)
def test_any_number_of_images_runs_at_the_sizes_there_are(sizes, count, ran):
  calls = []

  def run(images):
    calls.append(len(images))
    return 2 * images, images[:, None]

  programs = Programs(dict.fromkeys((*sizes, None), run))
  doubled, rows = programs(np.arange(count))
  np.testing.assert_array_equal(doubled, 2 * np.arange(count))
  np.testing.assert_array_equal(rows, np.arange(count)[:, None])
  assert calls == ran
  assert sum(number for number, _ in runs(count, sizes)) == count
  assert programs.packed_sizes == sizes


@pytest.mark.slow
@pytest.mark.parametrize("form", PROGRAMS)
def test_tokens_and_their_positions_are_returned_where_asked_for(
  exported, network, images, form, tmp_path, monkeypatch
):
  without = load_artifact(exported(form)[0])
  with pytest.raises(InputError, match="returns no tokens: export it with --tokens"):
    without(images, tokens=True)
  path = tmp_path / NAMES[form]
  note = network.export(path, form, (3,), tokens=True)
  assert note["outputs"] == ["logits", "kept", "tokens", "positions", "sources"]
  artifact = load_artifact(path)
  expected = tiny.run_masked(ARCH, network.params, network.preprocessing.normalize(images))
  assert len(artifact(images[:4], tokens=True)) == 4
  logits, kept, tokens, positions, sources = artifact(images[:4], tokens=True, sources=True)
  assert sources.dtype == np.int32
  np.testing.assert_array_equal(sources, expected.sources[:4])
  np.testing.assert_allclose(logits, expected.logits[:4], atol=1e-4)
  np.testing.assert_array_equal(kept, expected.kept[:4])
  assert (tokens.dtype, positions.dtype) == (np.float32, np.int32)
  for i in range(4):
    at = positions[i]
    assert sorted(at[at >= 0]) == np.flatnonzero(expected.positions[i] >= 0).tolist()
    np.testing.assert_allclose(tokens[i][at >= 0], expected.tokens[i][at[at >= 0]], atol=1e-4)
    assert not tokens[i][at < 0].any()
  assert len(artifact(images[:4])) == 2  # and nobody else sees them
  monkeypatch.setattr(verification, "TOLERANCE", 1e-4)
  run = artifact.programs.by_size[next(iter(artifact.programs.by_size))]
  for wrong, said in (
    (lambda t, p, s: (t + 0.01, p, s), r"tokens by 0\.0"),
    (lambda t, p, s: (t, p.clip(min=0), s), "tokens by inf"),
    (lambda t, p, s: (t, p, s.clip(min=1)), "inf of the patches have other sources"),
    (lambda t, p, s: (t, p, np.where(s == s.max(1, keepdims=True), -1, s)), "inf of the patches"),
  ):

    def other(images, wrong=wrong):
      logits, kept, tokens, positions, sources = map(np.asarray, run(images))
      return logits, kept, *wrong(tokens, positions, sources)

    size = next(iter(artifact.programs.by_size))
    with pytest.raises(InputError, match=said):
      verification.largest_difference(network, Programs({size: other}), form)


def test_no_call_compiles_after_a_warm_up(exported, network, images):
  path = exported("stablehlo")[0]
  with compilations() as compiled:
    artifact = load_artifact(path)
    artifact.warm_up()
    assert len(compiled) == 2  # its packed programs
    for count in (1, 2, 3, 4, 8):
      artifact(images[:count])
    assert len(compiled) == 2
  for sizes, said in (((1, 2), r"\[1, 2\]: this artifact runs at 1, 3"), ((0,), "runs at 1, 3")):
    with pytest.raises(InputError, match=said):
      artifact.warm_up(sizes)


def test_no_call_of_a_dense_artifact_compiles_after_a_warm_up(network, images, tmp_path):
  network.dense.export(tmp_path / "net.zip", "stablehlo")
  artifact, dense = load_artifact(tmp_path / "net.zip"), network.dense
  expected = artifact(images[:3])[0]  # of exactly three
  artifact.warm_up((2, 4))
  dense.warm_up((3,))
  with compilations() as compiled:
    for count in (1, 2, 3, 4, 8):
      logits, _ = artifact(images[:count])
      np.testing.assert_allclose(logits[:3], expected[:count], atol=1e-5)
    dense(images[:3])
    assert not compiled
  with pytest.raises(InputError, match=r"batch sizes \[0\]: .* runs at numbers of images"):
    artifact.warm_up((0,))
  with pytest.raises(InputError, match=r"batch sizes \[0\]: expected numbers"):
    dense.warm_up((0,))


@contextlib.contextmanager
def compilations():
  """A list with an entry for every program that XLA is given to compile."""
  found = []

  def listen(event, _, **__):
    if event == "/jax/core/compile/backend_compile_duration":
      found.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield found
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def test_an_image_has_its_own_result_in_any_company(exported, images):
  artifact = load_artifact(exported("stablehlo")[0])
  alone = [artifact(images[i : i + 1]) for i in range(8)]
  logits, kept = artifact(images)  # 3, 3 and 2, filled up to 3
  np.testing.assert_allclose(logits, np.concatenate([one[0] for one in alone]), atol=1e-5)
  np.testing.assert_array_equal(kept, np.concatenate([one[1] for one in alone]))
  others = artifact(np.concatenate([images[5:8], images[:2]]))[0][3:]  # by others, filled up
  np.testing.assert_array_equal(others, artifact(images[:2])[0])
  with pytest.raises(InputError, match="no images: expected at least one"):
    artifact(images[:0])


@pytest.mark.parametrize("form", FORMATS)
def test_the_note_says_what_an_artifact_is(exported, network, form):
  path, summary = exported(form)
  assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, path.name + ".json"])
  note = json.loads(path.with_name(path.name + ".json").read_text())
  assert note == summary
  said = {"format": form, "variant": "tiny", "budget": 0.6, "image_size": 16, "patch_size": 4}
  said |= {"num_classes": 3, "classes": list(CLASSES), "prune_before": [1, 2, 3]}
  said |= {"architecture": ARCH.to_json()}
  assert said.items() <= note.items()
  assert note["gmacs_target"] == pytest.approx(0.6 * complexity.dense_gmacs(ARCH))
  assert note["gmacs_dense"] == pytest.approx(complexity.dense_gmacs(ARCH))
  assert note["preprocessing"] == {
    "resize": "shorter side to image_size ÷ crop_ratio, bilinear; centre crop of image_size",
    "crop_ratio": 0.9,
    "interpolation": "bilinear",
    "input": "uint8 RGB, (b, image_size, image_size, 3); normalised inside",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
  }
  assert note["versions"]["jax"] == importlib.metadata.version("jax")
  assert note["outputs"] == ["logits", "kept"]
  np.testing.assert_allclose(note["thresholds"], network.params["thresholds"])
  package = {"savedmodel": "tensorflow", "onnx": "onnxruntime", "tflite": "tensorflow"}
  package |= {"stablehlo": "jax", "safetensors": "safetensors"}
  (least,) = note["least_versions"].items()
  assert least[0] == package[form]
  assert re.fullmatch(r"\d+\.\d+(\.\d+)*", least[1])
  if FORMATS[form].directory:
    found = {str(p.relative_to(path)): sha256(p) for p in path.rglob("*") if p.is_file()}
    assert found
  else:
    found = sha256(path)
  if form == "savedmodel":
    assert {"saved_model.pb", "fingerprint.pb"} <= found.keys()
  assert note["sha256"] == found


def sha256(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_are_the_weights_to_the_bit_under_timms_names(exported, network):
  path, note = exported("safetensors")
  loaded = load(path)
  jax.tree.map(np.testing.assert_array_equal, loaded.params, network.params)
  assert loaded.describe() == network.describe()
  dense = to_timm(network.dense.params)
  assert safetensors.numpy.load_file(path).keys() == dense.keys()
  assert note["largest_logit_difference"] == 0
  with pytest.raises(InputError, match="holds weights only; give it as --weights"):
    load_artifact(path)


@pytest.mark.slow
def test_stablehlo_runs_with_jax_alone(exported, network, images, tmp_path):
  path, _ = exported("stablehlo")
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
  logits, kept = in_memory(network, images[:3])
  for name in ("masked", "packed_3"):
    outputs = np.load(tmp_path / f"{name}.npz")
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    np.testing.assert_array_equal(outputs["kept"], kept)


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.parametrize("lv", [False, True], ids=["deit", "lvvit"])
def test_a_dense_network_is_exported_as_one_program(tmp_path, form, lv):
  for library in FORMATS[form].needs:
    pytest.importorskip(library)
  arch = tiny.arch(depth=5, **(tiny.LV if lv else {}))
  network = tiny.network(arch).dense
  path = tmp_path / NAMES[form]
  note = network.export(path, form)
  assert note["prune_before"] == []
  artifact = load_artifact(path)
  assert artifact.packed_sizes == ()
  images = verification.sample_images(arch.image_size)[:2]
  outputs = tiny.run_dense(arch.dense, network.params, tiny.normalize(images))
  logits, kept = artifact(images)
  np.testing.assert_allclose(logits, outputs.logits, atol=2e-4)
  assert kept.shape == (2, 0)


def test_an_artifact_computes_in_float32_whatever_the_network_does(tmp_path, images):
  network = tiny.network(ARCH, dtype="bfloat16").dense
  note = network.export(tmp_path / "net.zip", "stablehlo")
  assert note["largest_logit_difference"] < 1e-4
  exact = tiny.run_dense(ARCH.dense, network.params, tiny.normalize(images)).logits
  np.testing.assert_allclose(load_artifact(tmp_path / "net.zip")(images)[0], exact, atol=1e-4)
  assert np.abs(network(images).logits - exact).max() > 1e-3


def test_every_program_is_verified_whatever_the_batch_sizes(network, images):
  # As many images as the verification has must not keep it from the program for any number.
  def right(images):
    outputs = verification.reference(network, images)
    return outputs["logits"], outputs["kept"]

  def wrong(images):
    logits, kept = right(images)
    return logits + 1, kept

  programs = Programs({len(images): right, None: wrong})
  with pytest.raises(InputError, match=r"stablehlo artifact.*differs from the network"):
    verification.largest_difference(network, programs, "stablehlo")


def test_an_artifact_that_keeps_other_tokens_does_not_verify(network, images):
  outputs = verification.reference(network, images)
  assert outputs["certain"].all()
  programs = Programs({None: lambda images: (outputs["logits"], outputs["kept"])})
  assert verification.largest_difference(network, programs, "onnx") == 0
  more = outputs["kept"].at[2, 1].add(1)
  programs = Programs({None: lambda images: (outputs["logits"], more)})
  with pytest.raises(InputError, match="1 images keep other tokens"):
    verification.largest_difference(network, programs, "onnx")


def test_images_of_which_rounding_decides_are_not_compared(network, monkeypatch, capsys):
  def wrong(images):
    outputs = verification.reference(network, images)
    return outputs["logits"] + 1, outputs["kept"]

  programs = Programs({None: wrong})
  monkeypatch.setattr(verification, "_ROUNDING", 1.0)  # then it decides everywhere
  assert verification.largest_difference(network, programs, "onnx") == 0
  assert "onnx: not compared" in capsys.readouterr().err
  monkeypatch.undo()
  with pytest.raises(InputError, match="onnx artifact differs"):
    verification.largest_difference(network, programs, "onnx")


def test_equal_scores_where_a_multiple_is_made_up_are_not_certain():
  arch = tiny.arch(count_multiple=5)
  network = tiny.network(arch).with_thresholds([1.0] * 3)  # above all: 4 of equals make up 5
  params = network.params | {"pos_embed": 0 * network.params["pos_embed"]}
  network, grey = network.with_params(params), np.full((1, 32, 32, 3), 128, np.uint8)
  outputs = verification.reference(network, grey)
  assert outputs["kept"].tolist() == [[4, 4, 4]]
  assert not outputs["certain"].any()


@pytest.mark.external
def test_a_savedmodel_replaces_an_earlier_one(tmp_path):
  pytest.importorskip("tensorflow")
  path = tmp_path / "net"
  path.mkdir()
  (path / "old").write_text("")
  with pytest.raises(
    InputError, match=r"is a directory, and net\.json beside it does not describe"
  ):
    tiny.network(ARCH).dense.export(path, "savedmodel")  # which is somebody's
  (path / "old").unlink()
  for seed in (0, 1):
    tiny.network(ARCH, seed=seed).dense.export(path, "savedmodel")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["net", "net.json"]
  assert load_artifact(path)(np.zeros((2, 16, 16, 3), np.uint8))[0].shape == (2, 3)


@pytest.mark.slow
def test_a_network_that_merges_is_exported_as_it_runs(tmp_path, short_ladders):
  arch = dataclasses.replace(ARCH, reduction="merge", score="attention_novelty")
  pixels = verification.sample_images(ARCH.image_size)
  network = tiny.network(arch).calibrate(pixels, 0.7)
  note = network.export(tmp_path / "net.zip", "stablehlo", (2,))
  assert note["architecture"]["reduction"] == "merge"
  artifact = load_artifact(tmp_path / "net.zip")
  expected = network(pixels, "masked")
  for count in (2, 8):
    logits, kept = artifact(pixels[:count])
    np.testing.assert_allclose(logits, expected.logits[:count], atol=1e-4)
    np.testing.assert_array_equal(kept, expected.kept[:count])
