import errno
import importlib.util
import os

import pytest

from asvit_jax.core import command, recipes, storage
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
  earlier = storage.files_in if directory else None
  with pytest.raises(expected), storage.replacing(path, "it", earlier) as partial:
    if directory:
      partial.mkdir()
      (partial / "half").write_text("half")
    else:
      partial.write_text("half")
    raise error
  assert os.listdir(tmp_path) == (["it"] if before else [])
  if before:
    assert (path / "old" if directory else path).read_text() == "old"


def test_a_directory_takes_the_place_of_an_earlier_one(tmp_path):
  for name in ("first", "second"):
    with storage.replacing(tmp_path / "it", "it", storage.files_in) as partial:
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
    if os.fspath(target) == os.fspath(path) and not (source / "old").exists():
      raise OSError(errno.EIO, "broken")
    replace(source, target)

  monkeypatch.setattr(os, "replace", failing)
  with (
    pytest.raises(InputError, match=r"cannot write it to .*broken"),
    storage.replacing(path, "it", storage.files_in) as partial,
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


def test_the_home_directory_is_known_wherever_a_path_is_given(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  storage.write("~/a/file", "text")
  assert (tmp_path / "a" / "file").read_text() == "text"
  assert storage.read("~/a/file") == b"text"
  with storage.local("~/a/file") as path:
    assert path == tmp_path / "a" / "file"
  storage.check_writable("~/a", "workdir")
  assert storage.on_disk("~/a", "data.dir", "") == tmp_path / "a"
  storage.move("~/a/file", "~/b/file")
  storage.remove("~/b/file")
  assert [sorted(os.listdir(tmp_path / name)) for name in ("a", "b")] == [[], []]
  (tmp_path / "mine.py").write_text("")
  assert recipes.find("~/mine.py:0.65") == f"{tmp_path}/mine.py:0.65"
  with pytest.raises(InputError, match="nobody-at-all"):
    storage.path("~nobody-at-all/file")


def test_stores_that_are_not_there_are_refused_with_what_to_do(monkeypatch):
  with pytest.raises(InputError, match=r"hdfs:// is not supported: .* gs:// or s3://"):
    storage.path("hdfs://host/file")
  with pytest.raises(InputError, match="gs:///file names no bucket"):
    storage.path("gs:///file")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match=r"needs gcsfs, which is not installed: .*'\.\[storage\]'"):
    storage.path("gs://bucket/file")
  with pytest.raises(InputError, match=r"data.dir gs://b/d is in an object store.*: copy it"):
    storage.on_disk("gs://b/d", "data.dir", "copy it")


def test_what_the_environment_and_a_config_name_is_looked_at_first(monkeypatch):
  # JAX would warn at every program, and keep none of them.
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/cache")
  assert list(command._named_paths()) == ["gs://bucket/cache"]


def test_only_regular_files_are_read(tmp_path):
  (tmp_path / "file").write_bytes(b"123")
  assert storage.read(tmp_path / "file", most=3) == b"123"
  with pytest.raises(OSError, match="longer than the 2 bytes"):
    storage.read(tmp_path / "file", most=2)
  os.mkfifo(tmp_path / "pipe")  # nobody writes to it, and nobody waits
  (tmp_path / "endless").symlink_to("/dev/zero")
  for name in ("pipe", "endless"):
    with pytest.raises(OSError, match="not a regular file"):
      storage.read(tmp_path / name)
  with pytest.raises(IsADirectoryError):
    storage.read(tmp_path)
