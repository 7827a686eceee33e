"""What `export` leaves behind when it cannot finish: what was there before, and a clear error."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib

import jax
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.export.artifacts import note_path
from asvit_jax.export.formats import FORMATS

NETWORK = tiny.network(tiny.TRAINED).dense
BEFORE = pytest.mark.parametrize("before", [True, False], ids=["over an earlier one", "new"])


@contextlib.contextmanager
def fails(path, before, said):
  """The block raises InputError; afterwards the directory holds what it held before.

  That is nothing, or where `before` is true an artifact and its note.
  """
  for file in path.parent.iterdir():
    file.unlink()
  kept = {path.name: "an earlier artifact", note_path(path).name: "and its note"}
  kept = kept if before else {}
  for name, content in kept.items():
    (path.parent / name).write_text(content)
  with pytest.raises(InputError, match=said):
    yield
  assert {p.name: p.is_file() and p.read_text() for p in path.parent.iterdir()} == kept


def other(network):
  head = jax.tree.map(lambda x: x + 0.01, network.params["head"])
  return network.with_params(network.params | {"head": head})


@pytest.mark.parametrize("form", ["safetensors", "stablehlo"])
@pytest.mark.parametrize("damage", ["other", "cut"])
@BEFORE
def test_an_artifact_that_does_not_verify_gets_no_name(tmp_path, monkeypatch, form, damage, before):
  path, write = tmp_path / "net", FORMATS[form].write

  def damaged(network, path, batch_sizes):
    write(other(network) if damage == "other" else network, path, batch_sizes)
    if damage == "cut":
      path.write_bytes(path.read_bytes()[:-100])

  monkeypatch.setattr(FORMATS[form], "write", damaged)
  with fails(path, before, "nothing was exported" if damage == "other" else "truncated"):
    NETWORK.export(path, form)


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_leaves_nothing_but_what_was_there(tmp_path, monkeypatch, form):
  path, directory = tmp_path / "net", FORMATS[form].directory

  def interrupted(network, path, batch_sizes):
    if directory:
      path.mkdir()
      path = path / "half"
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(FORMATS[form], "write", interrupted)
  monkeypatch.setattr(FORMATS[form], "needs", {})  # nothing of them is reached
  with fails(path, False, f"cannot write {form} to .*No space left"):
    NETWORK.export(path, form)
  if not directory:
    with fails(path, True, f"cannot write {form} to .*No space left"):
      NETWORK.export(path, form)
    return
  path.mkdir()
  (path / "model").write_text("an earlier one")
  checksums = {"model": hashlib.sha256(b"an earlier one").hexdigest()}
  note = {"format": form, "preprocessing": {}, "sha256": checksums}
  note_path(path).write_text(json.dumps(note))
  with pytest.raises(InputError, match=f"cannot write {form} to .*No space left"):
    NETWORK.export(path, form)
  left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
  assert left == ["net", "net.json", "net/model"]
  assert (path / "model").read_text() == "an earlier one"
  assert json.loads(note_path(path).read_text()) == note


@BEFORE
def test_a_disk_full_at_the_note_leaves_nothing_but_what_was_there(tmp_path, monkeypatch, before):
  write_text = pathlib.Path.write_text

  def interrupted(file, text):
    write_text(file, text[:10])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  path = tmp_path / "w.safetensors"
  with fails(path, before, "No space left"), monkeypatch.context() as patched:
    patched.setattr(pathlib.Path, "write_text", interrupted)
    NETWORK.export(path, "safetensors")


@pytest.mark.parametrize("refused", ["artifact", "note"])
@BEFORE
def test_artifact_and_note_take_their_places_both_or_neither(
  tmp_path, monkeypatch, refused, before
):
  path = tmp_path / "w.safetensors"
  target = path if refused == "artifact" else note_path(path)
  replace = os.replace

  def refusing(source, destination):
    if pathlib.Path(destination) == target:
      raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    replace(source, destination)

  with fails(path, before, "cannot write safetensors to .*not permitted"):
    monkeypatch.setattr(os, "replace", refusing)
    NETWORK.export(path, "safetensors")


@pytest.mark.parametrize("name", ["file/net", "x" * 300], ids=["below a file", "name too long"])
def test_a_path_that_cannot_be_written_is_an_input_error(tmp_path, name):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write safetensors to"):
    NETWORK.export(tmp_path / name, "safetensors")
  assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_batch_sizes_that_are_none_are_an_input_error(tmp_path):
  with pytest.raises(InputError, match=r"batch sizes \[0, 4\]: expected"):
    NETWORK.export(tmp_path / "net", "stablehlo", (4, 0))
  for sizes in (3, "3", (1, "a"), (1.5,), (1, 2**21)):
    with pytest.raises(InputError, match=r"batch sizes .*: expected"):
      NETWORK.export(tmp_path / "net", "stablehlo", sizes)
  assert not list(tmp_path.iterdir())
