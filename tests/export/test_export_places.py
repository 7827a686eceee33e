"""What an artifact may be written over: an earlier one, and nothing of anybody's."""

import json
from typing import ClassVar

import places
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.export import writing
from asvit_jax.export.formats import FORMATS
from asvit_jax.export.formats.base import Format

NETWORK = tiny.network(tiny.TRAINED).dense


class Folder(Format):
  """An artifact that is a directory, as a SavedModel is, and quick."""

  name = "folder"
  directory = "a folder"
  needs: ClassVar = {}
  content = "one"

  def write(self, network, path, batch_sizes):
    (path / "variables").mkdir(parents=True)
    (path / "assets").mkdir()
    for name in ("model", "variables/0"):
      (path / name).write_text(self.content)

  def verify(self, network, path):
    return 0.0


folder = Folder()
FORM = f"{__name__}:folder"


def export(path, content="two"):
  folder.content = content
  NETWORK.export(path, FORM)


def refuses(path, said):
  """An export to a path, and its check, change nothing below its directory."""
  before = places.snapshot(path.parent)
  for call in (lambda: export(path), lambda: writing.check_path(FORM, path)):
    with pytest.raises(InputError, match=said):
      call()
    assert places.snapshot(path.parent) == before


@pytest.fixture
def written(tmp_path):
  """The path of an artifact."""
  export(tmp_path / "net", "one")
  return tmp_path / "net"


def test_an_earlier_artifact_is_replaced_again_and_again(written):
  for content in ("two", "three"):
    for path in (written, f"{written}/"):
      export(path, content)
      found = places.snapshot(written.parent)
      files = {"net/model", "net/variables/0"}
      assert set(found) == files | {"net", "net.json", "net/assets", "net/variables"}
      assert {found[name][1] for name in files} == {content.encode()}


CHANGES = {
  "a file more": lambda path: (path / "mine").write_text(places.MINE),
  "a file more, deeper": lambda path: (path / "assets" / "mine").write_text(places.MINE),
  "a file less": lambda path: (path / "model").unlink(),
  "a file changed": lambda path: (path / "model").write_text(places.MINE),
  "a link": lambda path: (path / "link").symlink_to("model"),
  "a link to a directory": lambda path: (path / "link").symlink_to("/"),
  "a link in place of a file": lambda path: (
    (path / "model").rename(path.parent / "model"),
    (path / "model").symlink_to("../model"),
  ),
  "no note": lambda path: path.with_name("net.json").unlink(),
  "a note of somebody's": lambda path: path.with_name("net.json").write_text('{"my": "results"}'),
  "a note that is no JSON": lambda path: path.with_name("net.json").write_text("[" * 9999),
  "a note of one file": lambda path: path.with_name("net.json").write_text(
    json.dumps(json.loads(path.with_name("net.json").read_text()) | {"sha256": "x"})
  ),
  "a note from before": lambda path: path.with_name("net.json").write_text(
    '{"format": "folder", "preprocessing": {}}'
  ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_directory_with_anything_else_in_it_is_somebodys(written, change):
  CHANGES[change](written)
  refuses(written, r"net is a directory, and net\.json|net\.json, where .* is another file")


@pytest.mark.parametrize("kind", [kind for kind in places.REFUSED if "empty" not in kind])
def test_only_a_directory_is_replaced_by_one(tmp_path, kind):
  places.REFUSED[kind](tmp_path / "net")
  refuses(tmp_path / "net", "net")


def test_what_fails_leaves_the_earlier_artifact_with_its_note(written, monkeypatch):
  before = places.snapshot(written.parent)
  monkeypatch.setattr(Folder, "verify", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    export(written)
  assert places.snapshot(written.parent) == before

  def write_in_it(self, network, path):
    (written / "mine").write_text(places.MINE)
    return 0.0

  monkeypatch.setattr(Folder, "verify", write_in_it)
  with pytest.raises(InputError, match="net is a directory, and net"):
    export(written)
  after = places.snapshot(written.parent)
  assert after.pop("net/mine")[1] == places.MINE.encode()
  assert after == before


def test_an_empty_directory_keeps_its_permissions(tmp_path):
  (tmp_path / "net").mkdir(mode=0o700)
  export(tmp_path / "net")
  assert (tmp_path / "net").stat().st_mode & 0o777 == 0o700
  assert (tmp_path / "net" / "model").read_text() == "two"


@pytest.mark.parametrize("form", ["safetensors", FORM])
def test_a_file_under_the_name_of_the_note_is_not_taken_for_one(tmp_path, form):
  note = tmp_path / "results.json"
  for text in ('{"top1": 80.0}', "[1, 2]", "no JSON"):
    note.write_text(text)
    for call in (NETWORK.export, lambda path, form: writing.check_path(form, path)):
      with pytest.raises(InputError, match=r"results\.json, where .* note would be written"):
        call(tmp_path / "results", form)
    assert note.read_text() == text
  assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("form", ["safetensors", FORM])
@pytest.mark.parametrize("kind", places.REFUSED)
def test_nor_is_what_is_no_file(tmp_path, form, kind):
  places.REFUSED[kind](tmp_path / "net.json")
  before = places.snapshot(tmp_path)
  for call in (NETWORK.export, lambda path, form: writing.check_path(form, path)):
    with pytest.raises(InputError, match=r"net\.json"):
      call(tmp_path / "net", form)
    assert places.snapshot(tmp_path) == before


@pytest.mark.external
def test_a_savedmodel_is_replaced_where_it_is_one(tmp_path):
  for _ in range(2):
    NETWORK.export(tmp_path / "net", "savedmodel", (1,))
  (tmp_path / "net" / "mine").write_text(places.MINE)
  before = places.snapshot(tmp_path)
  with pytest.raises(InputError, match="net is a directory, and net"):
    NETWORK.export(tmp_path / "net", "savedmodel", (1,))
  assert places.snapshot(tmp_path) == before
  assert FORMATS["savedmodel"].directory


@pytest.mark.external
def test_so_it_is_in_a_bucket(bucket):
  from asvit_jax.core import storage

  for content in ("one", "two"):
    export(f"{bucket}/net", content)
    assert storage.read(f"{bucket}/net/model") == content.encode()
  storage.write(f"{bucket}/net/mine", places.MINE)
  with pytest.raises(InputError, match="net is a directory, and net"):
    export(f"{bucket}/net")
  assert storage.files_in(f"{bucket}/net") == ["mine", "model", "variables/0"]
