"""What a note tells of an artifact: enough to use it, in any process, of any version."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.export import artifacts, verification
from asvit_jax.export.artifacts import load_artifact, note_path

ARCH = tiny.TRAINED


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """(network, path) of an artifact of no published architecture."""
  arch = tiny.arch(depth=3, prune_before=(1,), mlp_ratio=1.5, stem="conv")
  preprocessing = Preprocessing(0.8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "lanczos")
  network = tiny.network(arch, variant="mine", preprocessing=preprocessing)
  path = tmp_path_factory.mktemp("mine") / "net.zip"
  network.export(path, "stablehlo", (), budget=0.7)
  return network, path


def rewritten(path, directory, change):
  """The artifact copied, with `change` of its note."""
  copy = directory / path.name
  copy.write_bytes(path.read_bytes())
  note = json.loads(note_path(path).read_text())
  note_path(copy).write_text(json.dumps(change(note)))
  return copy


@pytest.mark.slow
def test_own_architectures_are_loaded_where_no_variant_is_known(written, repository, tmp_path):
  network, path = written
  images = verification.sample_images(network.arch.image_size)
  np.save(tmp_path / "images.npy", images)
  script = (
    "import json, pathlib, sys, numpy as np, asvit_jax\n"
    "asvit_jax.VARIANTS.clear()\n"
    "directory = pathlib.Path(sys.argv[2])\n"
    "artifact = asvit_jax.load_artifact(sys.argv[1])\n"
    "logits, kept = artifact(np.load(directory / 'images.npy'))\n"
    "np.savez(directory / 'outputs.npz', logits=logits, kept=kept)\n"
    "print(json.dumps([artifact.arch.to_json(), artifact.preprocessing.to_json()]))\n"
  )
  process = subprocess.run(
    [sys.executable, "-c", script, path, tmp_path],
    cwd=repository,
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  said = network.describe()
  assert json.loads(process.stdout) == [said["architecture"], said["preprocessing"]]
  outputs, expected = np.load(tmp_path / "outputs.npz"), network(images, "masked")
  np.testing.assert_allclose(outputs["logits"], expected.logits, atol=1e-4)
  np.testing.assert_array_equal(outputs["kept"], expected.kept)
  assert len(np.unique(outputs["kept"])) > 2


def test_artifacts_of_before_architectures_were_written_are_of_their_variant(
  written, tmp_path, monkeypatch
):
  network, path = written
  sizes = {"image_size": 16, "patch_size": 4, "classes": 3}
  monkeypatch.setitem(vit.VARIANTS, "mine", dataclasses.replace(network.arch, **sizes))

  def older(note):
    del note["architecture"], note["preprocessing"]["interpolation"]
    del note["description_sha256"]
    return note

  artifact = load_artifact(rewritten(path, tmp_path, older))
  assert artifact.arch == network.arch
  assert artifact.preprocessing == dataclasses.replace(
    network.preprocessing, interpolation="bicubic"
  )
  assert artifact.classes is None
  monkeypatch.delitem(vit.VARIANTS, "mine")
  with pytest.raises(InputError, match="lacks or does not know 'mine': export it again"):
    load_artifact(tmp_path / path.name)


@pytest.mark.parametrize("key", ["classes", "preprocessing"])
def test_what_a_note_lacks_is_named(written, tmp_path, key):
  path = rewritten(written[1], tmp_path, lambda note: {k: note[k] for k in note if k != key})
  with pytest.raises(InputError, match=f"lacks or does not know '{key}': export it again"):
    load_artifact(path)


def test_another_number_of_names_than_of_classes_is_refused(written, tmp_path):
  """Labels without a name would be an IndexError, and the others have that of another."""
  path = rewritten(written[1], tmp_path, lambda note: note | {"classes": ["ant", "bee"]})
  with pytest.raises(InputError, match=r"2 names of classes \(ant, bee\).*: export it again with"):
    load_artifact(path)


def test_an_architecture_of_a_newer_version_is_refused(written, tmp_path):
  def newer(note):
    return note | {"architecture": note["architecture"] | {"wings": 2}}

  with pytest.raises(InputError, match=r"artifact's description describes.*unknown wings"):
    load_artifact(rewritten(written[1], tmp_path, newer))


@pytest.mark.parametrize(
  ("form", "said"),
  [
    ("papyrus", r"artifact .*net\.zip: --format 'papyrus' is not known: choose from safetensors"),
    ("os:path", r"artifact .*net\.zip: 'os:path' is not an export format"),
    (None, r"artifact .*net\.zip: --format None is not known"),
  ],
)
def test_a_format_that_is_none_is_refused(written, tmp_path, form, said):
  path = rewritten(written[1], tmp_path, lambda note: note | {"format": form})
  with pytest.raises(InputError, match=said):
    load_artifact(path)


@pytest.mark.parametrize(
  "images",
  [
    np.zeros((2, 24, 24, 3), np.uint8),
    np.zeros((32, 32, 3), np.uint8),
    np.zeros((2, 32, 32, 3), np.float32),
  ],
  ids=["size", "no batch", "type"],
)
def test_images_that_do_not_fit_are_refused(written, images):
  artifact = load_artifact(written[1])
  with pytest.raises(InputError, match=r"images of shape .*expected \(b, 32, 32, 3\), uint8"):
    artifact(images)


def test_an_artifact_without_a_readable_note_is_refused(tmp_path):
  path = tmp_path / "net.onnx"
  with pytest.raises(InputError, match=r"net\.onnx: no such file"):
    load_artifact(path)
  path.write_bytes(b"anything")
  note = note_path(path)
  for content in (None, "{", "[]", "{}", '"text"'):
    if content is not None:
      note.write_text(content)
    with pytest.raises(InputError, match=r"its description net\.onnx\.json is missing or"):
      load_artifact(path)


def test_a_damaged_artifact_and_one_of_another_version_are_refused(tmp_path, tiny_variant):
  path = tmp_path / "net.zip"
  path.write_bytes(b"anything")
  note = {"format": "stablehlo", "variant": "tiny", "image_size": 16, "patch_size": 4}
  note_path(path).write_text(json.dumps(note))
  with pytest.raises(InputError, match="cannot be loaded as stablehlo"):
    load_artifact(path)
  with pytest.raises(InputError, match="'num_classes'"):
    artifacts.architecture(note)
  with pytest.raises(InputError, match="'vit_z'"):
    artifacts.architecture(note | {"variant": "vit_z"})
  assert artifacts.architecture(note | {"num_classes": 3}) == ARCH
