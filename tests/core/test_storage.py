import errno
import os

import pytest

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError


@pytest.mark.parametrize("content", ["text", b"bytes"])
@pytest.mark.parametrize("before", [None, "old"])
def test_what_is_written_is_there_and_nothing_beside_it(tmp_path, content, before):
  path = tmp_path / "new" / "file"
  if before:
    storage.write(path, before)
  storage.write(path, content)
  expected = content if isinstance(content, bytes) else content.encode()
  assert path.read_bytes() == expected
  assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("directory", [False, True], ids=["file", "directory"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "over an earlier one"])
def test_what_is_interrupted_leaves_what_was_there(tmp_path, error, directory, before):
  path = tmp_path / "it"
  if before:
    if directory:
      path.mkdir()
      (path / "old").write_text("old")
    else:
      path.write_text("old")
  expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
  with pytest.raises(expected), storage.replacing(path, "it") as partial:
    if directory:
      partial.mkdir()
      (partial / "half").write_text("half")
    else:
      partial.write_text("half")
    raise error
  assert os.listdir(tmp_path) == (["it"] if before else [])
  if before:
    assert (path / "old" if directory else path).read_text() == "old"


def test_a_directory_takes_the_place_of_another(tmp_path):
  for name in ("first", "second"):
    with storage.replacing(tmp_path / "it", "it") as partial:
      partial.mkdir()
      (partial / name).write_text(name)
  assert os.listdir(tmp_path) == ["it"]
  assert os.listdir(tmp_path / "it") == ["second"]


def test_an_earlier_directory_comes_back_where_the_new_one_cannot_be_named(tmp_path, monkeypatch):
  path = tmp_path / "it"
  path.mkdir()
  (path / "old").write_text("old")
  replace = os.replace

  def failing(source, target):
    if str(source).endswith(".partial"):
      raise OSError(errno.EIO, "broken")
    replace(source, target)

  monkeypatch.setattr(os, "replace", failing)
  with (
    pytest.raises(InputError, match=r"cannot write it to .*broken"),
    storage.replacing(path, "it") as partial,
  ):
    partial.mkdir()
  assert os.listdir(tmp_path) == ["it"]
  assert (path / "old").read_text() == "old"


def test_without_a_name_for_it_an_error_of_the_disk_comes_through(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(OSError, match=r"Not a directory|File exists"):
    storage.write(tmp_path / "file" / "below", "text")
  with pytest.raises(InputError, match=r"cannot write the note to .*below"):
    storage.write(tmp_path / "file" / "below", "text", "the note")


def test_a_directory_that_could_not_be_written_is_refused(tmp_path):
  storage.check_writable(tmp_path / "a" / "b", "workdir")
  assert os.listdir(tmp_path) == []
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match=r"cannot write to workdir .*: .*file is not a writable"):
    storage.check_writable(tmp_path / "file" / "b", "workdir")


def test_an_image_that_cannot_be_read_is_named(tmp_path):
  (tmp_path / "a.png").write_bytes(b"content")
  assert storage.read_image(tmp_path / "a.png") == b"content"
  with pytest.raises(InputError, match=r"image .*none\.png cannot be read \(No such file"):
    storage.read_image(tmp_path / "none.png")
