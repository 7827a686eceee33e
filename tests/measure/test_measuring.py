"""Parts run in their time, most valuable first; what was measured is kept, and continued."""

import json
import threading

import hanging
import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.measure import page, running, settings
from asvit_jax.measure.parts import Part, Skipped, all_parts

AGREES = {"what": "packed", "agrees": True, "same": 3, "undecided": 0, "wrong": 0}
SPEED = {"images_per_s": 10.0, "speedup": 1.5, "dense": {"images_per_s": 6.7}}
OF = {"network": "tiny", "reduction": "drop", "share": 0.65, "batch": 8, "execution": "flat"}
OF |= {"dtype": "float32"}


def part(number, result=None, kind="throughput", least_s=0, calls=None):
  def run():
    if calls is not None:
      calls.append(number)
    if isinstance(result, Exception):
      raise result
    return result() if callable(result) else result or SPEED

  return Part(kind, OF | {"batch": number}, run, least_s)


def test_all_parts_have_names_of_their_own_and_correctness_comes_first():
  for chosen in (settings.QUICK, settings.FULL):
    listed = all_parts(chosen, "tpu")
    assert len({one.name for one in listed}) == len(listed)
    kinds = [one.kind for one in listed]
    assert kinds[:3] == ["correctness"] * 3
    assert set(kinds) == {"correctness", "throughput", "training", "rival"}
    assert {one.of["dtype"] for one in listed if one.kind == "throughput"} == {"bfloat16"}
  first = next(one for one in listed if one.kind == "throughput")
  assert (first.of["network"], first.of["batch"], first.of["execution"]) == ("deit_s", 64, "flat")
  timed = {tuple(one.of.values()) for one in listed if one.kind == "throughput"}
  assert len(timed) == 3 * 4 * 2 * 2 * 3  # networks, batches, reductions, shares, executions


def test_a_second_call_continues(tmp_path):
  calls = []
  parts = [
    part(1, [AGREES], "correctness", calls=calls),
    part(2, calls=calls),
    part(3, Skipped("torch not installed"), "rival", calls=calls),
    part(4, RuntimeError("the device\nis lost"), calls=calls),
  ]
  measured = running.run(tmp_path, parts, 60, True)
  assert calls == [1, 2, 3, 4]
  statuses = [one["status"] for one in measured["parts"].values()]
  assert statuses == ["done", "done", "skipped", "failed"]
  assert measured["parts"][parts[3].name]["reason"] == "RuntimeError: the device is lost"
  assert measured["correct"] is True
  assert json.loads((tmp_path / running.NAME).read_text()) == measured
  assert "torch not installed" in (tmp_path / page.NAME).read_text()
  parts[3] = part(4, calls=calls)
  again = running.run(tmp_path, parts, 60, True)
  assert calls == [1, 2, 3, 4, 3, 4]  # what was not done is tried again
  assert [one["status"] for one in again["parts"].values()] == ["done", "done", "skipped", "done"]
  assert again["parts"][parts[1].name] == measured["parts"][parts[1].name]


def test_what_is_there_is_kept_after_each_part(tmp_path):
  def look():
    seen.update(json.loads((tmp_path / running.NAME).read_text()))
    return SPEED

  seen = {}
  running.run(tmp_path, [part(1), part(2, look), part(3)], 60, True)
  assert [one["status"] for one in seen["parts"].values()] == ["done", "missing", "missing"]
  assert seen["correct"] is None  # nothing was compared


def test_parts_that_need_more_time_than_is_left_are_skipped(tmp_path):
  calls = []
  parts = [part(1, calls=calls), part(2, least_s=100, calls=calls), part(3, calls=calls)]
  measured = running.run(tmp_path, parts, 50, True)
  assert calls == [1, 3]
  skipped = measured["parts"][parts[1].name]
  assert skipped["status"] == "skipped"
  assert skipped["reason"].startswith("it needs about 100 s, and ")


def test_what_hangs_is_abandoned_when_the_time_is_over(tmp_path, monkeypatch):
  ended, go_on = [], threading.Event()
  monkeypatch.setattr(running.stopping, "end_at_exit", ended.append)
  parts = [part(1, [AGREES], "correctness"), part(2, go_on.wait), part(3)]
  with hanging.never():
    measured = running.run(tmp_path, parts, 1, True)
  go_on.set()
  statuses = [one["status"] for one in measured["parts"].values()]
  assert statuses == ["done", "unfinished", "skipped"]
  assert ended == [0]


COMPARED = {
  "all agree": ([[AGREES], [AGREES | {"what": "flat"}]], True),
  "one differs": ([[AGREES], [AGREES, AGREES | {"agrees": False, "wrong": 1}]], False),
  "one refuses": ([[AGREES, {"what": "flat by x", "refused": "width 3"}]], True),
  "one fails": ([[AGREES], RuntimeError("no")], False),
  "one is skipped": ([[AGREES], Skipped("no")], None),
  "one differs, one is skipped": ([[AGREES | {"agrees": False}], Skipped("no")], False),
  "none": ([], None),
}


@pytest.mark.parametrize("kind", COMPARED)
def test_it_is_correct_if_all_that_was_compared_agrees(tmp_path, kind):
  results, correct = COMPARED[kind]
  parts = [part(i, result, "correctness") for i, result in enumerate(results)]
  assert running.run(tmp_path, [*parts, part(9)], 60, True)["correct"] is correct


def test_measurements_of_another_machine_are_not_continued(tmp_path):
  running.run(tmp_path, [part(1)], 60, True)
  with pytest.raises(InputError, match=r"of another machine or version \(quick True, here False\)"):
    running.run(tmp_path, [part(1)], 60, False)
  assert "1.5" in (tmp_path / running.NAME).read_text()
  (tmp_path / running.NAME).write_text('{"machine": 3}')
  with pytest.raises(InputError, match=r"measure\.json: .*expected an object"):
    running.run(tmp_path, [part(1)], 60, True)


def test_quick_measurements_of_another_version_begin_anew(tmp_path, monkeypatch):
  calls = []
  for version in ("a", "a", "b"):
    monkeypatch.setattr(running, "_source", lambda version=version: version)
    running.run(tmp_path, [part(1, calls=calls)], 60, True)
  assert calls == [1, 1]


def test_the_page_has_every_number(tmp_path):
  parts = [
    part(1, [AGREES | {"logits_error": 0.25, "correlation": 1.0}], "correctness"),
    part(2, [AGREES | {"what": "flat by x", "agrees": False}], "correctness"),
    part(8, SPEED | {"ms": 1.25}),
    part(64, SPEED | {"speedup": 1.75}),
    part(5, {"images_per_s": 3.0, "ms": 9.0, "loss": 7.0}, "training"),
    part(6, {"images_per_s": 8.0, "torch": "2.9"}, "rival"),
    part(7, Skipped("no time")),
  ]
  shown = page.page_of(running.run(tmp_path, parts, 60, True))
  tables = {table.title: table for table in shown.tables}
  assert (shown.tiles[0].label, shown.tiles[0].value) == ("Correct", "no")
  assert [tile.value for tile in shown.tiles[1:]] == ["1.50×", "1.75×"]
  assert any("DIFFERS" in row for row in tables["Correctness"].rows)
  assert any("agrees" in row and 0.25 in row for row in tables["Correctness"].rows)
  assert sum("dense" in row and 6.7 in row for row in tables["Speed"].rows) == 2
  assert sum("flat" in row for row in tables["Speed"].rows) == 2
  assert 7.0 in tables["Training step"].rows[0]
  assert "2.9" in tables["Dense by timm under torch.compile"].rows[0]
  assert "no time" in tables["Not measured"].rows[0]
  (chart,) = shown.charts
  assert [(p.x, p.y) for p in chart.series[0].points] == [(8, 1.5), (64, 1.75)]
  assert any("tiny network" in text for text in shown.summary)
