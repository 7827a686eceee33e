"""Files in an object store, by the same functions as files on a disk."""

import os

import pytest

from asvit_jax.core import recipes, storage
from asvit_jax.core.errors import InputError

pytestmark = pytest.mark.external


def test_files_are_written_read_moved_and_removed(bucket):
  file = f"{bucket}/a/file.txt"
  storage.write(file, "one", "it")
  storage.write(file, b"two", "it")
  assert storage.read(file) == storage.read(storage.path(file)) == b"two"
  assert [path.name for path in storage.path(f"{bucket}/a").iterdir()] == ["file.txt"]
  storage.move(f"{bucket}/a", f"{bucket}/b/c")
  assert not storage.path(file).exists()
  assert storage.read(f"{bucket}/b/c/file.txt") == b"two"
  assert storage.files_in(f"{bucket}/b") == ["c/file.txt"]
  for _ in range(2):
    storage.remove(f"{bucket}/b/c/file.txt")
  assert not storage.path(f"{bucket}/b").exists()
  with pytest.raises(OSError):
    storage.read(file)
  with pytest.raises(InputError, match=r"image gs://.* cannot be read"):
    storage.read_image(file)


def test_a_directory_takes_the_place_of_an_earlier_one(bucket):
  for name in ("first", "second"):
    with storage.replacing(f"{bucket}/it", "it", storage.files_in) as partial:
      (partial / "below").mkdir(parents=True)
      (partial / "below" / name).write_text(name)
  with storage.local(f"{bucket}/it") as copy:
    assert os.listdir(copy) == ["below"]
    assert os.listdir(copy / "below") == ["second"]
  assert not copy.exists()
  for path in ("it", "it/below"):
    with pytest.raises(InputError, match="it is a directory: give the name of a file"):
      storage.check_file(f"{bucket}/{path}", "it")
    with pytest.raises(InputError, match="it is a directory: give the name of a file"):
      storage.write(f"{bucket}/{path}", "text", "it")

  def unknown(path):
    raise InputError(f"{path} is somebody's")

  with (
    pytest.raises(InputError, match="is somebody's"),
    storage.replacing(f"{bucket}/it", "it", unknown) as partial,
  ):
    partial.mkdir()
  assert storage.files_in(f"{bucket}/it") == ["below/second"]
  for name in ("", "a/", "a/.."):
    with pytest.raises(InputError, match="does not end in the name of a file"):
      storage.check_file(f"{bucket}/{name}", "it")


def test_a_copy_of_a_directory_stays_in_its_place(bucket):
  import fsspec

  fsspec.filesystem("gs").pipe_file(f"{bucket}/it/../../outside", b"evil")
  with (
    pytest.raises(OSError, match="outside the copy"),
    storage.local(f"{bucket}/it"),
  ):
    raise AssertionError


def test_what_is_interrupted_leaves_what_was_there(bucket):
  storage.write(f"{bucket}/it", "old")
  with pytest.raises(KeyboardInterrupt), storage.replacing(f"{bucket}/it", "it") as partial:
    partial.write_text("half")
    raise KeyboardInterrupt
  assert storage.read(f"{bucket}/it") == b"old"


def test_what_another_process_writes_is_seen(bucket):
  import fsspec

  directory = storage.path(f"{bucket}/it")
  storage.write(directory / "1", "")
  assert len(list(directory.iterdir())) == 1
  other = fsspec.filesystem("gs", skip_instance_cache=True)
  other.pipe_file(f"{directory}/2", b"")
  assert len(list(directory.iterdir())) == 2
  other.rm_file(f"{directory}/1")
  assert not (directory / "1").exists()


def test_a_bucket_that_cannot_be_written_is_refused_at_once(bucket):
  storage.check_writable(f"{bucket}/run", "workdir")
  assert not list(storage.path(bucket).iterdir())
  with pytest.raises(InputError, match="cannot write to workdir gs://"):
    storage.check_writable(f"{bucket}-of-nobody/run", "workdir")
  with pytest.raises(InputError, match="cannot write the page to gs://"):
    storage.write(f"{bucket}-of-nobody/index.html", "text", "the page")


def test_a_config_in_a_bucket_is_a_config(bucket):
  storage.write(f"{bucket}/mine.py", "text")
  found = recipes.find(f"{bucket}/mine.py:0.65,merge")
  file, _, argument = found.partition(":")
  assert argument == "0.65,merge"
  assert storage.read(file) == b"text"
  with pytest.raises(InputError, match=r"--config gs://.*none\.py cannot be read"):
    recipes.find(f"{bucket}/none.py")
