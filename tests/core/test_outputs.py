"""Whatever is at a path that is written to: a file is written, or one line says why not."""

import contextlib
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import places
import processes
import pytest
import tiny
from matplotlib.figure import Figure

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.evaluation import accuracy, per_class
from asvit_jax.evaluation.features import Features
from asvit_jax.report import tokens

NETWORK = tiny.network(tiny.TRAINED).dense
IS_ROOT = os.geteuid() == 0


def _features(path):
  features = Features(["a.png"])
  features.add(tokens=np.zeros((1, 2, 3)))
  features.save(path)


def _rows(path):
  rows = {k: np.zeros(1, int) for k in ("label", "prediction", "kept")}
  accuracy._write_per_image(path, rows | {"file": np.array(["a"])})


def _replacing(path):
  with storage.replacing(path, "it") as partial, partial.open("wb") as file:
    file.write(b"new")


WRITERS = {
  "write": lambda path: storage.write(path, "new", "it"),
  "replacing": _replacing,
  "save": NETWORK.save,
  "export": lambda path: NETWORK.export(path, "safetensors"),
  "picture": lambda path: tokens.save(Figure((1, 1), dpi=10), path),
  "features": _features,
  "per class": lambda path: per_class.write(path, np.eye(2, dtype=int), ("a", "b")),
  "per image": _rows,
}
EVERY = pytest.mark.parametrize("writer", WRITERS)


@EVERY
@pytest.mark.parametrize("kind", places.REFUSED)
def test_nothing_but_a_file_is_written_over(tmp_path, writer, kind):
  place = tmp_path / "out"
  places.REFUSED[kind](place)
  write = WRITERS[writer]
  refused = places.assert_written_or_refused(tmp_path, place, lambda: write(place), InputError)
  assert refused is not None
  said = {"link to itself": "leads nowhere", "dangling link": "link to", "empty directory": "a dir"}
  expected = said.get(kind, kind.split()[0])
  assert expected in str(refused) or (writer, kind) == ("export", "link to a directory")
  with pytest.raises(InputError):
    storage.check_file(place, "it")


@EVERY
@pytest.mark.parametrize("kind", places.WRITTEN)
def test_what_is_written_is_all_that_changes(tmp_path, writer, kind):
  place = tmp_path / "out"
  places.WRITTEN[kind](place)
  before = places.snapshot(tmp_path)
  storage.check_file(place, "it")
  assert places.snapshot(tmp_path) == before

  def write():
    WRITERS[writer](place)
    if writer == "export":
      (tmp_path / "out.json").unlink()

  assert places.assert_written_or_refused(tmp_path, place, write, InputError, before) is None


@pytest.mark.skipif(IS_ROOT, reason="root writes everywhere")
@EVERY
@pytest.mark.parametrize("kind", places.PERMISSIONS)
def test_what_may_not_be_written_is_not(tmp_path, writer, kind):
  place = tmp_path / "directory" / "out"
  place.parent.mkdir()
  places.PERMISSIONS[kind](place)
  write = WRITERS[writer]
  assert places.assert_written_or_refused(tmp_path, place, lambda: write(place), InputError)
  with pytest.raises(InputError):
    storage.check_file(place, "it")
  place.parent.chmod(0o700)


ANOTHER_USER = """
import os, sys
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

os.setgroups([])
os.setgid(1234)
os.setuid(1234)
for call in (storage.check_file, lambda place, what: storage.write(place, "new", what)):
  try:
    call(sys.argv[1], "it")
  except InputError:
    continue
  sys.exit("it is written")
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root becomes another user")
@pytest.mark.parametrize("kind", places.PERMISSIONS)
def test_nor_by_another_user(tmp_path, kind):
  for directory in (*list(tmp_path.parents)[:-2], tmp_path):
    if directory.owner() == "root" and "pytest" in directory.name:
      directory.chmod(0o755)
  place = tmp_path / "directory" / "out"
  place.parent.mkdir()
  places.PERMISSIONS[kind](place)
  os.chown(place.parent, 1234, 1234)
  if place.exists():
    os.chown(place, 1234, 1234)
  before = places.snapshot(tmp_path)
  processes.succeed("-c", ANOTHER_USER, place)
  assert places.snapshot(tmp_path) == before


@pytest.mark.parametrize("name", places.NAMES)
def test_names_of_nothing_get_a_line(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  places.fill(tmp_path)
  path = places.NAMES[name].format(root=tmp_path)
  before = places.snapshot(tmp_path)
  for call in (
    lambda: storage.check_file(path, "it"),
    lambda: storage.write(path, "new", "it"),
    lambda: NETWORK.save(path),
    lambda: NETWORK.export(path, "safetensors"),
  ):
    with pytest.raises(InputError) as raised:
      call()
    assert "\n" not in str(raised.value)
  after = places.snapshot(tmp_path)
  assert {k: after[k] for k in before} == before


@pytest.mark.parametrize("name", places.GOOD_NAMES)
def test_all_other_names_are_written(tmp_path, name):
  path = places.GOOD_NAMES[name].format(root=tmp_path)
  storage.check_file(path, "it")
  assert not os.listdir(tmp_path)
  before = places.snapshot(tmp_path)
  for content in ("one", "two"):
    storage.write(path, content, "it")
    assert storage.read(path) == content.encode()
  assert places.assert_written_or_refused(tmp_path, path, lambda: None, (), before) is None


def test_only_a_directory_that_is_known_is_replaced_by_one(tmp_path):
  def write(place, earlier):
    with storage.replacing(place, "it", earlier) as partial:
      partial.mkdir()
      (partial / "new").write_text("new")

  def unknown(place):
    raise InputError(f"{place} is somebody's")

  for kind, make in places.REFUSED.items():
    root = tmp_path / kind
    root.mkdir()
    make(root / "out")
    before = places.snapshot(root)
    for earlier in (unknown, lambda place: ["another file"], lambda place: []):
      if kind != "empty directory":
        for call in (write, lambda place, known: storage.check_replaceable(place, "it", known)):
          if call is not write and earlier is not unknown:
            continue  # it is told that they may go
          with pytest.raises(InputError):
            call(root / "out", earlier)
          assert places.snapshot(root) == before
  for kind in ("nothing", "empty directory", "directory"):
    root = tmp_path / f"{kind} again"
    root.mkdir()
    (places.REFUSED | places.WRITTEN)[kind](root / "out")
    for _ in range(2):
      write(f"{root}/out/", storage.files_in)
      assert sorted(places.snapshot(root)) == ["out", "out/new"]


def test_a_file_in_the_place_of_a_directory_and_the_other_way_is_an_error(tmp_path):
  with (
    pytest.raises(InputError, match="other than a file"),
    storage.replacing(tmp_path / "a", "it") as p,
  ):
    p.mkdir()
  with (
    pytest.raises(InputError, match="other than a directory"),
    storage.replacing(tmp_path / "a", "it", storage.files_in) as p,
  ):
    p.write_text("")
  with pytest.raises(InputError), storage.replacing(tmp_path / "a", "it") as p:
    p.symlink_to("/etc/hostname")
  with (
    pytest.raises(InputError, match=r"written beside it, too: a\.data"),
    storage.replacing(tmp_path / "a", "it") as p,
  ):
    p.write_text("")
    p.with_name("a.data").write_text("")
  assert not os.listdir(tmp_path)


def test_what_comes_into_its_place_meanwhile_stays(tmp_path):
  for kind, make in places.REFUSED.items():
    root = tmp_path / kind
    root.mkdir()
    with pytest.raises(InputError), storage.replacing(root / "out", "it") as partial:
      partial.write_text("new")
      make(root / "out")
      before = {k: v for k, v in places.snapshot(root).items() if "asvit_jax" not in k}
    assert places.snapshot(root) == before


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
  done, sync, replace = [], os.fsync, os.replace

  def synced(descriptor):
    done.append(("sync", stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    sync(descriptor)

  def replaced(source, target):
    done.append(("replace", os.path.basename(target)))
    replace(source, target)

  monkeypatch.setattr(os, "fsync", synced)
  monkeypatch.setattr(os, "replace", replaced)
  storage.write(tmp_path / "out", "new")
  assert done == [("sync", False), ("replace", "out"), ("sync", True)]


@pytest.mark.parametrize("number, said", [(5, "Input/output error"), (22, None)])
def test_a_disk_that_fails_is_an_error_and_one_that_cannot_say_is_none(
  tmp_path, monkeypatch, number, said
):
  storage.write(tmp_path / "out", "old")

  def failing(descriptor):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(os, "fsync", failing)
  with contextlib.nullcontext() if said is None else pytest.raises(InputError, match=said):
    storage.write(tmp_path / "out", "new", "it")
  assert (tmp_path / "out").read_text() == ("old" if said else "new")
  assert os.listdir(tmp_path) == ["out"]


def test_permissions_follow_the_umask_and_then_stay(tmp_path):
  before = os.umask(0o027)
  try:
    storage.write(tmp_path / "out", "new")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
    for mode in (0o600, 0o664, 0o755):
      (tmp_path / "out").chmod(mode)
      storage.write(tmp_path / "out", "newer")
      assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode
  finally:
    os.umask(before)


WRITER = """
import sys
from asvit_jax.core import storage
for i in range(40):
  storage.write(sys.argv[1], sys.argv[2] * 300_000)
"""


def test_a_reader_sees_whole_files_of_two_processes_and_of_threads(tmp_path):
  path = tmp_path / "out"
  storage.write(path, 300_000 * "0")
  others = [
    subprocess.Popen([sys.executable, "-c", WRITER, path, name], env=processes.environment())
    for name in "12"
  ]
  threads = [
    threading.Thread(target=lambda: [storage.write(path, 300_000 * "3") for _ in range(40)])
    for _ in range(2)
  ]
  for thread in threads:
    thread.start()
  seen = set()
  while any(other.poll() is None for other in others) or any(t.is_alive() for t in threads):
    content = path.read_bytes()
    assert len(content) == 300_000
    assert len(set(content)) == 1
    seen.add(content[:1])
  assert [other.wait() for other in others] == [0, 0]
  assert len(seen) > 1
  assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path):
  script = (
    "import os, sys\nfrom asvit_jax.core import storage\n"
    "with storage.replacing(sys.argv[1]) as partial:\n"
    "  partial.write_text('half')\n  os.kill(os.getpid(), 9)\n"
  )
  for _ in range(2):
    code = subprocess.call(
      [sys.executable, "-c", script, tmp_path / "out"], env=processes.environment()
    )
    assert code == -9
  assert not (tmp_path / "out").exists()
  storage.write(tmp_path / "out", "whole")
  assert (tmp_path / "out").read_text() == "whole"


def test_nothing_is_appended_to_but_a_file(tmp_path):
  for kind, make in places.REFUSED.items():
    root = tmp_path / kind
    root.mkdir()
    make(root / "out")
    before = places.snapshot(root)
    for call in (storage.remove, lambda path: storage.append(path, "x")):
      with pytest.raises(OSError):
        call(root / "out")
      assert places.snapshot(root) == before
  for _ in range(2):
    storage.append(tmp_path / "new", "a\udcff\n")
  assert (tmp_path / "new").read_text() == "a\\udcff\n" * 2
