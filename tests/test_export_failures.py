"""What `export` leaves behind when it cannot finish: what was there before, and a clear error."""

import contextlib
import errno
import os
import pathlib
import sys

import jax
import pytest
import tiny

from asvit_jax import artifacts, export
from asvit_jax.errors import InputError

ARCH = tiny.TRAINED.dense
NAMES = {
  "safetensors": "w.safetensors",
  "stablehlo": "net.stablehlo.zip",
  "savedmodel": "net",
  "onnx": "net.onnx",
}

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture
def description():
  return export.describe(tiny.config(""), ARCH)


@contextlib.contextmanager
def fails(path, before, said):
  """The block raises InputError; afterwards the directory holds what it held before.

  That is nothing, or where `before` is true an artifact and its note.
  """
  for file in path.parent.iterdir():
    file.unlink()
  kept = {path.name: "an earlier artifact", artifacts.note_path(path).name: "and its note"}
  kept = kept if before else {}
  for name, content in kept.items():
    (path.parent / name).write_text(content)
  with pytest.raises(InputError, match=said):
    yield
  assert {p.name: p.is_file() and p.read_text() for p in path.parent.iterdir()} == kept


def other(params):
  return params | {"head": jax.tree.map(lambda x: x + 0.01, params["head"])}


@pytest.mark.parametrize("form", ["safetensors", "stablehlo"])
@pytest.mark.parametrize("damage", ["other", "cut"])
@pytest.mark.parametrize("before", [True, False], ids=["over an earlier one", "new"])
def test_an_artifact_that_does_not_verify_gets_no_name(
  tmp_path, description, monkeypatch, form, damage, before
):
  params, path = tiny.params(ARCH), tmp_path / NAMES[form]
  write = export._WRITERS[form]

  def damaged(arch, params, path, batch_sizes):
    write(arch, other(params) if damage == "other" else params, path, batch_sizes)
    if damage == "cut":
      path.write_bytes(path.read_bytes()[:-100])

  monkeypatch.setitem(export._WRITERS, form, damaged)
  with fails(path, before, "nothing was exported" if damage == "other" else "truncated"):
    export.export(ARCH, params, path, form, description)


@pytest.mark.parametrize("form", export.FORMATS)
def test_a_full_disk_leaves_nothing_but_what_was_there(tmp_path, description, monkeypatch, form):
  def interrupted(arch, params, path, batch_sizes):
    if form == "savedmodel":
      path.mkdir()
      path = path / "saved_model.pb"
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setitem(export._WRITERS, form, interrupted)
  for before in (True, False):
    with fails(tmp_path / NAMES[form], before, f"cannot write {form}.*No space left"):
      export.export(ARCH, tiny.params(ARCH), tmp_path / NAMES[form], form, description)


def test_a_disk_full_at_the_note_leaves_nothing_but_what_was_there(
  tmp_path, description, monkeypatch
):
  write_text = pathlib.Path.write_text

  def interrupted(file, text):
    write_text(file, text[:10])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  path = tmp_path / "w.safetensors"
  for before in (True, False):
    with fails(path, before, "No space left"), monkeypatch.context() as patched:
      patched.setattr(pathlib.Path, "write_text", interrupted)
      export.export(ARCH, tiny.params(ARCH), path, "safetensors", description)


@pytest.mark.parametrize("name", ["file/net", "x" * 300], ids=["below a file", "name too long"])
def test_a_path_that_cannot_be_written_is_an_input_error(tmp_path, description, name):
  (tmp_path / "file").write_text("")
  params = tiny.params(ARCH)
  with pytest.raises(InputError, match="cannot write safetensors to"):
    export.export(ARCH, params, tmp_path / name, "safetensors", description)
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("form", ["savedmodel", "onnx"])
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, form):
  needed = export._NEEDS[form][0]
  monkeypatch.setitem(sys.modules, needed, None)
  with pytest.raises(InputError, match=rf"{needed} is needed.*pip install -r requirements-export"):
    export.check_libraries(form)
  export.check_libraries("stablehlo")
