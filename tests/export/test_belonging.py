"""Artifacts of others: what unpacks to too much, calls out, or has the note of another."""

import io
import json
import tracemalloc
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.export import archives, notes
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.export.notes import note_path

ARCH = tiny.TRAINED
MUCH = 100_000_000  # bytes


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """The path of a dense artifact of three classes."""
  path = tmp_path_factory.mktemp("belonging") / "net.zip"
  network = tiny.network(ARCH.dense, variant="mine", classes=("ant", "bee", "cat"))
  network.export(path, "stablehlo", (1,))
  return path


def copied(path, directory, change=lambda note: note, content=None, keep=()):
  """The artifact with another content, and a note with a change; its checksum is made to fit."""
  copy = directory / path.name
  copy.write_bytes(path.read_bytes() if content is None else content)
  note = json.loads(note_path(path).read_text())
  if "sha256" not in keep:
    note["sha256"] = notes.checksums(copy)
  note_path(copy).write_text(json.dumps(change(note)))
  return copy


def repacked(path, replace=None, compression=zipfile.ZIP_STORED):
  """The bytes of the archive with other files in it."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", compression) as new:
    files = {name: old.read(name) for name in old.namelist()} | (replace or {})
    for name, content in files.items():
      new.writestr(name, content)
  return buffer.getvalue()


def weights_of(path):
  with zipfile.ZipFile(path) as archive:
    return dict(np.load(io.BytesIO(archive.read("weights.npz"))))


def compressed(arrays):
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  return buffer.getvalue()


def refused_in_little_memory(path, said):
  tracemalloc.start()
  try:
    with pytest.raises(InputError, match=said) as error:
      load_artifact(path)
    assert tracemalloc.get_traced_memory()[1] < MUCH / 4
  finally:
    tracemalloc.stop()
  assert "\n" not in str(error.value)


def test_what_unpacks_to_a_thousand_times_as_much_is_not_unpacked(written, tmp_path):
  deflated = repacked(written, {"weights.npz": bytes(MUCH)}, zipfile.ZIP_DEFLATED)
  assert len(deflated) < MUCH / 100
  refused_in_little_memory(copied(written, tmp_path, content=deflated), "would unpack to 10")
  inside = compressed({"head.bias": np.zeros(MUCH // 4, np.float32)})
  content = repacked(written, {"weights.npz": inside})
  refused_in_little_memory(copied(written, tmp_path, content=content), "weights.npz .*unpack to 10")


def test_what_is_packed_twice_unpacks_to_no_more(written, tmp_path):
  """Each of the archives by itself has a ratio that could be."""
  zeros = compressed({"head.bias": np.zeros(MUCH // 4, np.float32)})
  padded = io.BytesIO(zeros)
  with zipfile.ZipFile(padded, "a") as archive:  # of six million bytes, which deflate to few
    archive.writestr("padding.npy", _npy(np.zeros(6_000_000, np.uint8)))
  content = repacked(written, {"weights.npz": padded.getvalue()}, zipfile.ZIP_DEFLATED)
  assert 16 * len(padded.getvalue()) + (16 << 20) > MUCH
  refused_in_little_memory(copied(written, tmp_path, content=content), "weights.npz .*unpack to 10")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_what_cannot_be_unpacked_in_parts_is_refused(written, tmp_path, method):
  content = repacked(written, {"weights.npz": bytes(10_000_000)}, method)
  refused_in_little_memory(
    copied(written, tmp_path, content=content), "another method than deflate"
  )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(written, tmp_path):
  archive = io.BytesIO(written.read_bytes())
  with zipfile.ZipFile(archive, "a") as opened:
    opened.writestr("weights.npz", b"")
  with pytest.raises(InputError, match="has a file twice"):
    load_artifact(copied(written, tmp_path, content=archive.getvalue()))


def test_a_header_that_says_less_than_there_is_does_not_help(written, tmp_path):
  deflated = repacked(written, {"weights.npz": bytes(MUCH)}, zipfile.ZIP_DEFLATED)
  small = deflated.replace(MUCH.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
  assert small != deflated
  refused_in_little_memory(
    copied(written, tmp_path, content=small), "cannot be loaded as stablehlo"
  )


def test_an_array_larger_than_its_file_and_one_of_objects_are_refused(written, tmp_path):
  npy = io.BytesIO()
  header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 100)}
  np.lib.format.write_array_header_1_0(npy, header)
  for content, said in (
    (npy.getvalue() + bytes(16), r"does not match the file's data"),
    (_npy(np.array([print], object)), "does not match the file's data"),
    (b"anything", "is not an array"),
  ):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
      archive.writestr("head.bias.npy", content)
    changed = repacked(written, {"weights.npz": buffer.getvalue()})
    refused_in_little_memory(copied(written, tmp_path, content=changed), said)


def _npy(array):
  buffer = io.BytesIO()
  np.save(buffer, array, allow_pickle=True)
  return buffer.getvalue()


def test_an_archive_that_somebody_compressed_is_still_one(written, tmp_path):
  content = repacked(
    written, {"weights.npz": compressed(weights_of(written))}, zipfile.ZIP_DEFLATED
  )
  artifact = load_artifact(copied(written, tmp_path, content=content))
  images = np.zeros((1, 16, 16, 3), np.uint8)
  np.testing.assert_array_equal(artifact(images)[0], load_artifact(written)(images)[0])


def test_weights_of_other_shapes_than_the_programs_are_for_are_refused(written, tmp_path):
  weights = weights_of(written)
  weights["head.bias"] = weights["head.bias"][:2]
  content = repacked(written, {"weights.npz": compressed(weights)})
  with pytest.raises(InputError, match="for other weights than those in it"):
    load_artifact(copied(written, tmp_path, content=content))


def test_a_program_that_calls_functions_of_this_process_is_not_run(written, tmp_path):
  from jax import export

  name, weights = "theirs_of_this_process", weights_of(written)

  def program(weights, images):
    call = jax.ffi.ffi_call(name, jax.ShapeDtypeStruct((1, 3), jnp.float32))
    return {"logits": call(images), "kept": jnp.zeros((1, 0))}

  allowed = [export.DisabledSafetyCheck.custom_call(name)]
  exported = export.export(jax.jit(program), platforms=("cpu",), disabled_checks=allowed)
  exported = exported(weights, jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.uint8))
  content = repacked(written, {"packed_1.stablehlo": bytes(exported.serialize())})
  with pytest.raises(
    InputError, match="programs call theirs_of_this_process, which is not part of"
  ):
    load_artifact(copied(written, tmp_path, content=content))


def test_the_artifact_of_another_note_is_refused(written, tmp_path):
  changed = bytearray(written.read_bytes())
  changed[len(changed) // 2] ^= 1
  path = copied(written, tmp_path, content=bytes(changed), keep=("sha256",))
  with pytest.raises(InputError, match=r"net\.zip is not the one that net\.zip\.json describes"):
    load_artifact(path)
  path = copied(written, tmp_path, lambda note: note | {"sha256": {"a": "0"}})
  with pytest.raises(InputError, match="is not the one that"):
    load_artifact(path)


def test_a_directory_is_the_one_that_was_written_file_by_file(tmp_path):
  model = tmp_path / "net"
  (model / "variables").mkdir(parents=True)
  for name in ("saved_model.pb", "variables/data"):
    (model / name).write_bytes(name.encode())
  note = {"sha256": notes.checksums(model)}
  notes.check_artifact(note, model)
  assert set(note["sha256"]) == {"saved_model.pb", "variables/data"}

  def refused(file):
    with pytest.raises(InputError, match=f"its SHA-256 differs .first in {file}"):
      notes.check_artifact(note, model)

  (model / "more").write_text("")
  refused("more")
  (model / "more").unlink()
  (model / "variables" / "data").write_bytes(b"other")
  refused("variables/data")
  (model / "variables" / "data").unlink()
  refused("variables/data")


@pytest.mark.parametrize(
  "change",
  [
    {"classes": ["cat", "bee", "ant"]},
    {"classes": None},
    {"mean": [0.1, 0.1, 0.1]},
    {"std": [1.0, 1.0, 1.0]},
  ],
  ids=lambda change: f"{change}",
)
def test_names_and_pixels_of_another_network_are_refused(written, tmp_path, change):
  def changed(note):
    inside = {"preprocessing": note["preprocessing"] | change}
    return note | (change if "classes" in change else inside)

  with pytest.raises(
    InputError, match=r"the classes, mean or std in .* are not those with which it was"
  ):
    load_artifact(copied(written, tmp_path, changed))


def test_what_programs_return_is_what_the_note_describes(written, tmp_path):
  def four(note):
    arch = note["architecture"] | {"classes": 4}
    note = note | {"architecture": arch, "num_classes": 4, "classes": ["a", "b", "c", "d"]}
    note |= {"description_sha256": notes.checksum_of_description(note)}
    return note | {"names_sha256": notes.checksum_of_names(note)}

  with pytest.raises(InputError, match=r"return logits of shape \(.*3\), and its note .* \(b, 4\)"):
    load_artifact(copied(written, tmp_path, four))
  with pytest.raises(InputError, match=r"return kept of shape \(.*0\), and its note .* \(b, 2\)"):
    load_artifact(copied(written, tmp_path, lambda note: note | {"prune_before": [1, 2]}))
  artifact = load_artifact(written)
  for logits in (np.zeros((1, 4)), np.full((1, 3), np.nan)):
    artifact.programs.by_size[None] = lambda images, found=logits: (found, np.zeros((1, 0)))
    with pytest.raises(InputError, match="return logits"):
      artifact(np.zeros((1, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("form", ["onnx", "savedmodel", "tflite"])
def test_programs_of_every_format_say_what_they_return(tmp_path, form):
  path = tmp_path / "net"
  tiny.network(ARCH.dense).export(path, form, ())
  assert load_artifact(path).arch.classes == 3
  note = json.loads(note_path(path).read_text())
  note["architecture"] = note["architecture"] | {"classes": 4}
  note["description_sha256"] = notes.checksum_of_description(note)
  note_path(path).write_text(json.dumps(note))
  with pytest.raises(InputError, match=r"return logits of shape .*3\), and its note .* \(b, 4\)"):
    load_artifact(path)


def test_notes_of_before_checksums_are_taken_with_a_word(written, tmp_path, capfd):
  before = ("sha256", "names_sha256", "description_sha256", "prune_before")
  path = copied(written, tmp_path, lambda note: {k: note[k] for k in note if k not in before})
  assert load_artifact(path).classes == ("ant", "bee", "cat")
  assert "net.zip.json has no checksum" in capfd.readouterr().err


@pytest.mark.parametrize(
  "change",
  [
    {"sha256": 3},
    {"classes": "abc"},
    {"classes": [1, 2, 3]},
    {"preprocessing": {"mean": "a"}},
    {"architecture": []},
    {"architecture": None},
    {"least_versions": {"jax": 3}},
    {"least_versions": []},
    {"outputs": 3},
    {"prune_before": [None]},
    {"architecture": {"width": [3]}},
    {"num_classes": -1},
  ],
  ids=lambda change: f"{change}",
)
def test_a_note_of_another_form_is_refused_in_a_line(written, tmp_path, change):
  with pytest.raises(InputError) as error:
    load_artifact(copied(written, tmp_path, lambda note: note | change))
  assert "\n" not in str(error.value)


def test_more_files_than_any_artifact_has_are_not_listed(tmp_path):
  path = tmp_path / "many.zip"
  with zipfile.ZipFile(path, "w") as archive:
    for i in range(10_001):
      archive.writestr(str(i), b"")
  with pytest.raises(InputError, match="in 10,001 files"), archives.opened(path, "it"):
    pass
