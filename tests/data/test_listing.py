"""The list of a folder's files, and the cache that it is kept in."""

import os
import pickle
import time
from pathlib import Path

import pytest
from image_sets import make_config, open_source

from asvit_jax.core.errors import InputError
from asvit_jax.data.files import scan  # as it is, where `scanned` counts
from asvit_jax.data.sources import listing


def files(found):
  """What is in a `Listing`, {directory: names}."""
  firsts = found.firsts.tolist()
  return {
    entry[0]: [os.fsdecode(found[k]) for k in range(firsts[i], firsts[i + 1])]
    for i, entry in enumerate(found.directories)
  }


def there(root):
  """What is on the disk."""
  return {name: scan(root / name).names for name in listing.files.subdirectories(root)}


@pytest.fixture(autouse=True)
def few_are_worth_it(monkeypatch):
  monkeypatch.setattr(listing, "_LEAST", 1)


@pytest.fixture
def root(folder):
  """Its directories are older than what a coarse file system could mix up with now."""
  root = folder / "train"
  (root / "d").mkdir()  # an empty one
  (root / "a" / "grün.jpg").write_bytes(b"")
  (root / "a" / os.fsdecode(b"not utf-8 \xff.png")).write_bytes(b"")
  age(root)
  return root


def age(root):
  for i, path in enumerate(sorted(root.iterdir())):
    os.utime(path, ns=(0, time.time_ns() - (60 + i) * 10**9))


@pytest.fixture
def scanned(monkeypatch):
  """Names of the directories that were listed anew."""
  names = []
  monkeypatch.setattr(
    listing.files, "scan", lambda path: names.append(Path(path).name) or scan(path)
  )
  return names


def test_a_cached_list_is_mapped_and_equals_the_disk(root, tmp_path, scanned):
  cache = tmp_path / "cache"
  first = listing.list_files(root, cache)
  assert sorted(scanned) == ["a", "b", "c", "d"]
  scanned.clear()
  second = listing.list_files(root, cache)
  assert not scanned
  assert files(first) == files(second) == files(listing.list_files(root)) == there(root)
  assert len(second) == 13
  # What goes to a worker is where it is, not what it holds.
  assert len(pickle.dumps(second)) < 300
  assert files(pickle.loads(pickle.dumps(second))) == there(root)
  assert files(pickle.loads(pickle.dumps(listing.list_files(root)))) == there(root)


def test_what_has_changed_is_listed_again_and_nothing_else(root, tmp_path, scanned):
  cache = tmp_path / "cache"
  listing.list_files(root, cache)
  for change, expected in (
    (lambda: (root / "b" / "new.png").write_bytes(b""), ["b"]),
    (lambda: (root / "c" / "1.png").unlink(), ["c"]),
    (lambda: (root / "b").rename(root / "e"), ["e"]),
    (lambda: (root / "d").rmdir(), []),
    (lambda: (root / "b").mkdir(), ["b"]),
  ):
    change()
    scanned.clear()
    assert files(listing.list_files(root, cache)) == there(root)
    assert scanned == expected
    age(root)  # changes every directory's time
    listing.list_files(root, cache)


def test_what_changes_deeper_in_a_directory_is_listed_again(root, tmp_path, scanned):
  """The time of the directory itself says nothing of that."""
  deeper = root / "b" / "deeper"
  deeper.mkdir()
  (deeper / "0.png").write_bytes(b"")
  (deeper / "notes.txt").write_bytes(b"")
  os.utime(deeper, ns=(0, time.time_ns() - 90 * 10**9))
  age(root)
  for expected in (["a", "b", "c", "d"], []):
    scanned.clear()
    found = listing.list_files(root, tmp_path)
    assert sorted(scanned) == expected
    assert files(found)["b"][-1] == "deeper/0.png"
    assert [entry[3] for entry in found.directories] == [{}, {".txt": 1}, {}, {}]
  (deeper / "1.png").write_bytes(b"")
  scanned.clear()
  assert files(listing.list_files(root, tmp_path))["b"][-1] == "deeper/1.png"
  assert scanned == ["b"]


def test_a_cache_of_the_version_before_is_not_read(root, tmp_path, scanned):
  """It would be without what lies deeper; its checksum is good."""
  listing.list_files(root, tmp_path)
  (file,) = tmp_path.glob("*.list")
  file.write_bytes(file.read_bytes().replace(b"asvit_jax list 2", b"asvit_jax list 1"))
  scanned.clear()
  assert files(listing.list_files(root, tmp_path)) == there(root)
  assert sorted(scanned) == ["a", "b", "c", "d"]


def test_a_directory_that_changes_right_now_is_not_trusted(root, tmp_path, scanned):
  (root / "b" / "new.png").write_bytes(b"")
  listing.list_files(root, tmp_path)
  changed = (root / "b").stat().st_mtime_ns
  (root / "b" / "newer.png").write_bytes(b"")
  os.utime(root / "b", ns=(0, changed))  # as on a disk that counts whole seconds
  scanned.clear()
  assert files(listing.list_files(root, tmp_path)) == there(root)
  assert scanned == ["b"]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other"])
def test_a_damaged_cache_is_written_again(root, tmp_path, scanned, damage):
  cache = tmp_path / "cache"
  listing.list_files(root, cache)
  (file,) = cache.iterdir()  # and nothing half written beside it
  good = file.read_bytes()
  flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
  bad = {"empty": b"", "cut": good[:-20], "flipped": flipped, "other": b"x" * 80}[damage]
  file.write_bytes(bad)
  scanned.clear()
  assert files(listing.list_files(root, cache)) == there(root)
  assert sorted(scanned) == ["a", "b", "c", "d"]
  assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(root, tmp_path, capsys):
  (tmp_path / "file").write_bytes(b"")
  assert files(listing.list_files(root, tmp_path / "file" / "cache")) == there(root)
  assert "WARNING: the list of files is not kept" in capsys.readouterr().err


def test_a_worker_does_not_read_another_list_than_its_run(root, tmp_path):
  pickled = pickle.dumps(listing.list_files(root, tmp_path))
  (root / "b" / "new.png").write_bytes(b"")
  listing.list_files(root, tmp_path)
  with pytest.raises(InputError, match=r"has changed since the run began"):
    pickle.loads(pickled)


def test_a_source_is_the_same_with_a_cache_as_without(root, tmp_path):
  for split in ("train", "val"):
    config = make_config(dir=root.parent, cache=tmp_path / "cache")
    cached, plain = open_source(config, split), open_source(make_config(dir=root.parent), split)
    readable = [i for i in range(len(plain)) if plain[i]["image"]]
    assert len(cached) == len(plain)
    assert [cached[i] for i in readable] == [plain[i] for i in readable]
    expected = [f"{d}/{name}" for d, names in there(root.parent / split).items() for name in names]
    assert [os.path.relpath(plain[i]["file"], root.parent / split) for i in readable] == [
      name for name in expected if (root.parent / split / name).stat().st_size
    ]


def test_a_bucket_of_images_is_refused_with_what_to_do():
  with pytest.raises(InputError, match=r"gs://b/images is in an object store, .*mount"):
    open_source(make_config(dir="gs://b/images"))
