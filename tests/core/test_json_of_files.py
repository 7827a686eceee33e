"""JSON that tools keep for themselves: what somebody else put there is refused in a line."""

import json
import sys
import types
import zlib

import numpy as np
import pytest

from asvit_jax.commands import export
from asvit_jax.comparison.records import Records
from asvit_jax.core.errors import InputError
from asvit_jax.data.sources import listing
from asvit_jax.export.card import check_results
from asvit_jax.reference import files
from asvit_jax.run.wandb import Wandb

HOSTILE = ["", "[" * 100_000, "3", "[]", "{}", "null", '{"id": [], "result": 3}', "\ud800"]


def a_line(call):
  with pytest.raises(InputError) as error:
    call()
  assert "\n" not in str(error.value) and len(str(error.value)) < 1200
  return str(error.value)


def written(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(text.encode("utf-8", "surrogatepass"))
  return path


@pytest.mark.parametrize(
  "text", [*HOSTILE, '{"result": {"top1": NaN}}', '{"result": {"counts": 3}}']
)
def test_measurements_of_another_form_are_not_taken(tmp_path, text):
  records = Records(tmp_path)
  records.add(
    "dense", {"a": 1}, {"top1": 50.0, "counts": [3], "thresholds": [0.1], "more": {"b": 1}}
  )
  assert records.find("dense", {"a": 1})["top1"] == 50.0
  (file,) = tmp_path.rglob("dense-*.json")
  written(file, text)
  assert file.name in a_line(lambda: records.find("dense", {"a": 1}))


@pytest.mark.parametrize("text", [*HOSTILE, '{"id": "../x"}', '{"id": ""}'])
def test_an_id_of_wandb_is_a_name(tmp_path, monkeypatch, text):
  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=None))
  written(tmp_path / "wandb.json", text)
  assert "wandb.json" in a_line(lambda: Wandb(tmp_path, "project", None))


@pytest.mark.parametrize("text", [*HOSTILE, '{"kind": "vit"}'])
def test_hyperparameters_of_a_reference_have_a_form(repository, text):
  good = dict(np.load(repository / "tests" / "golden" / "deit_parity.npz"))
  assert files.metadata(good, "F")["kind"] == "vit"
  assert "F, its meta" in a_line(lambda: files.metadata({"meta": np.array(text)}, "F"))
  meta = json.loads(str(good["meta"]))
  for key, value in (("depth", float("nan")), ("prune_at", ["a"]), ("kind", []), ("depth", 10**9)):
    changed = {"meta": np.array(json.dumps(meta | {key: value}))}
    a_line(lambda changed=changed: files.architecture(files.metadata(changed, "F"), good))


@pytest.mark.parametrize(
  "header",
  [
    *(3, {}, [3], [["a"]], [["a", "b", {}, {}]], [[1, 1, {}, {}]], [["a", -1, {}, {}]]),
    *([["a", 10**30, {}, {}]], [["a", 1, [], {}]], [["a", True, {}, {}]]),
  ],
)
def test_a_list_of_files_with_another_header_is_made_anew(tmp_path, header):
  def kept(header):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = text + np.array([3], np.int64).tobytes() + b"a.b"
    numbers = np.array([zlib.crc32(body), len(text)], np.uint64).tobytes()
    (tmp_path / "list").write_bytes(listing._MAGIC + numbers + body)
    return listing._mapped(tmp_path / "list")

  assert kept([["a", 1, {}, {}]])[0] == b"a.b"
  assert kept(header) is None


@pytest.mark.parametrize(
  "text", [*HOSTILE, '{"top1": "50", "images": 3}', '{"top1": NaN, "images": 3}']
)
def test_results_for_a_card_are_numbers(tmp_path, text):
  a_line(lambda: check_results(export._results(written(tmp_path / "r.json", text))))
  written(tmp_path / "r.json", 'said before\n{"top1": 50.0, "images": 3, "kept": []}\n')
  assert export._results(tmp_path / "r.json")["top1"] == 50.0
