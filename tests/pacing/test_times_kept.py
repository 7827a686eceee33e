"""Times that are kept: read again as they were, or measured anew with a warning."""

import dataclasses
import json

import paced
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.pacing import cache, running
from asvit_jax.pacing.table import PARTS, Curves, Table, describe_network, widths

ARCH = tiny.arch()
BATCH = 4


def measured(network, batch):
  """A `Table` at the widths that are measured."""
  arch, at, found = network.arch, widths(network.arch), []
  for group in sorted(set(running.group_sizes(arch, batch, "cpu").values())):
    names = PARTS if arch.prune_inside else ("block", "stage", "decide", "last")
    parts = {name: tuple(paced.PARTS[name](n) for n in at) for name in names}
    found.append(Curves(group, 0.3, at, parts))
  return Table("cpu", "cpu", False, describe_network(network), batch, 12.5, 0.01, tuple(found))


@pytest.fixture
def network():
  return tiny.network(ARCH).dense


@pytest.fixture
def calls(monkeypatch, tmp_path):
  """The batches that were measured; the cache is a new directory."""
  found = []

  def measure(network, batch):
    found.append(batch)
    return measured(network, batch)

  monkeypatch.setattr(cache, "measure_table", measure)
  monkeypatch.setenv("ASVIT_CACHE", str(tmp_path / "kept"))
  return found


@pytest.fixture
def file(calls, network, tmp_path):
  """The file of a table that was kept."""
  cache.load_or_measure(network, BATCH)
  calls.clear()
  (found,) = (tmp_path / "kept" / "latency").iterdir()
  return found


def test_what_was_measured_is_read_again(file, calls, network, capsys):
  assert cache.load_or_measure(network, BATCH) == measured(network, BATCH)
  assert calls == []
  assert str(file) in capsys.readouterr().err


def test_another_network_batch_or_type_is_measured_by_itself(file, calls, network):
  wider = tiny.network(tiny.arch(width=48)).dense
  cache.load_or_measure(wider, BATCH)
  cache.load_or_measure(network, 2 * BATCH)
  cache.load_or_measure(dataclasses.replace(network, dtype="bfloat16"), BATCH)
  cache.load_or_measure(tiny.network(tiny.arch(prune_inside=True)).dense, BATCH)
  assert calls == [BATCH, 2 * BATCH, BATCH, BATCH]
  assert len(list(file.parent.iterdir())) == 5
  # Where it prunes, and how hard, decides no time of a part.
  elsewhere = tiny.network(tiny.arch(prune_before=(1, 4), stage_weights=(1, 2))).dense
  cache.load_or_measure(elsewhere, BATCH)
  assert len(calls) == 4


def changed(**changes):
  return lambda text: json.dumps(json.loads(text) | changes)


def with_curves(**changes):
  def change(text):
    values = json.loads(text)
    values["curves"] = [curves | changes for curves in values["curves"]]
    return json.dumps(values)

  return change


DAMAGES = {
  "cut off": lambda text: text[: len(text) // 2],
  "empty": lambda text: "",
  "a list": lambda text: "[]",
  "nested": lambda text: "[" * 100_000,
  "no times": changed(dense="fast"),
  "NaN": changed(dense=float("nan")),
  "negative": changed(dense=-1.0),
  "of something else": changed(key={"device": "other"}),
  "no curves": changed(curves=[]),
  "other widths": with_curves(widths=[1, 2, 3, 4, 5, 6, 7]),
  "short rows": with_curves(parts={"block": [1.0], "stage": [1.0], "decide": [1.0], "last": [1.0]}),
  "other groups": with_curves(group=3),
  "too long": lambda text: text + " " * (1 << 20),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_used_is_measured_anew_with_a_warning(file, calls, network, damage, capsys):
  file.write_text(DAMAGES[damage](file.read_text()))
  assert cache.load_or_measure(network, BATCH) == measured(network, BATCH)
  assert calls == [BATCH]
  said = capsys.readouterr().err
  assert said.count("warning: cached times cannot be used") == 1
  assert cache.load_or_measure(network, BATCH) == measured(network, BATCH)  # and was kept again
  assert calls == [BATCH]


def test_where_nothing_can_be_written_it_is_measured_each_time(
  calls, network, tmp_path, monkeypatch, capsys
):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("ASVIT_CACHE", str(tmp_path / "file" / "below"))
  for _ in range(2):
    assert cache.load_or_measure(network, BATCH) == measured(network, BATCH)
  assert calls == [BATCH, BATCH]
  assert "warning: the times of cpu are not cached" in capsys.readouterr().err


def test_a_cache_without_a_place_is_a_warning(calls, network, monkeypatch, capsys):
  def nowhere():
    raise InputError("no home directory")

  monkeypatch.setattr(cache, "directory", nowhere)
  assert cache.load_or_measure(network, BATCH) == measured(network, BATCH)
  assert "times are not cached (no home directory): set ASVIT_CACHE" in capsys.readouterr().err


def test_the_directory_is_that_of_the_environment(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.delenv("ASVIT_CACHE", raising=False)
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  assert cache.directory() == tmp_path / ".cache" / "asvit_jax" / "latency"
  monkeypatch.setenv("XDG_CACHE_HOME", "relative")
  assert cache.directory() == tmp_path / ".cache" / "asvit_jax" / "latency"
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
  assert cache.directory() == tmp_path / "xdg" / "asvit_jax" / "latency"
  monkeypatch.setenv("ASVIT_CACHE", str(tmp_path / "ours"))
  assert cache.directory() == tmp_path / "ours" / "latency"
