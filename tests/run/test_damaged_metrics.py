"""Lines of metrics.jsonl that are damaged: the good ones stay, and the file, too."""

import json

import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.run import metrics


def line(step, kind="train", **values):
  return json.dumps({"step": step, "kind": kind} | values).encode()


EVAL = {"top1": 50.0, "share": 1.0}
DAMAGED = {
  "broken": b'{"step": 2, "ki',
  "blank": b"",
  "zeros": bytes(20),
  "no text": b'{"step": 2, "kind": "\xff\xfe"}',
  "a list": b"[1, 2]",
  "a number": b"17",
  "no step": b'{"kind": "train"}',
  "step of text": b'{"step": "2", "kind": "train"}',
  "step of a boolean": b'{"step": true, "kind": "train"}',
  "kind of a number": b'{"step": 2, "kind": 3}',
  "deep": b'{"step": 2, "kind": "train", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
  "an evaluation without top-1": line(2, "eval", share=1.0),
  "top-1 of text": line(2, "eval", **EVAL | {"top1": "9"}),
  "not finite": b'{"step": 2, "kind": "eval", "top1": NaN, "share": 1.0}',
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_in_the_middle_is_left_out_and_a_copy_is_kept(tmp_path, damaged, capsys):
  whole = b"\n".join([line(1), damaged, line(3), line(4, "eval", **EVAL), b""])
  path = metrics.metrics_path(tmp_path)
  path.write_bytes(whole)
  for _ in range(2):
    assert [found["step"] for found in metrics.read(tmp_path)] == [1, 3, 4]
  said = capsys.readouterr().err
  assert said.count(f"WARNING: {path} is damaged; left out: line 2 (") == 1
  metrics.Metrics(tmp_path, 3).write(4, "train", {"loss": 1.0})
  assert [found["step"] for found in metrics.read(tmp_path)] == [1, 3, 4]
  (copy,) = tmp_path.glob("metrics.jsonl.damaged_*")
  assert copy.read_bytes() == whole
  assert str(copy) in capsys.readouterr().err


@pytest.mark.parametrize(
  "end", [b"", b'{"st', b"\xff\xfe\xfd", bytes(100), b'{"step": 3, "kind": ']
)
def test_what_a_kill_cut_short_is_left_out_silently(tmp_path, end, capsys):
  metrics.metrics_path(tmp_path).write_bytes(line(1) + b"\n" + line(2) + b"\n" + end)
  assert [found["step"] for found in metrics.read(tmp_path)] == [1, 2]
  metrics.Metrics(tmp_path, 2)
  assert [p.name for p in tmp_path.iterdir() if "damaged" in p.name] == []
  assert capsys.readouterr().err == ""


def test_a_last_line_without_its_end_is_a_line(tmp_path):
  metrics.metrics_path(tmp_path).write_bytes(line(1) + b"\n" + line(2))
  assert [found["step"] for found in metrics.read(tmp_path)] == [1, 2]


def test_a_file_that_is_none_is_an_error_of_a_line(tmp_path):
  import os

  os.mkfifo(metrics.metrics_path(tmp_path))
  with pytest.raises(InputError, match=r"cannot be read \(not a regular file"):
    metrics.read(tmp_path)


def test_curves_are_drawn_of_lines_that_differ():
  from asvit_jax.report import curves

  lines = [
    {"step": 1, "kind": "train", "loss": 1.0, "lr": 0.1, "gmacs": 1.0, "kept": [1.0, 2.0]},
    {"step": 2, "kind": "train", "loss": None, "lr": 0.1, "gmacs": 1.0, "kept": [1.0]},
    {"step": 3, "kind": "train"},
  ]
  assert curves.draw_curves(lines).axes


def test_a_run_that_starts_over_keeps_the_metrics_of_before(tmp_path, capsys):
  lines = "".join(json.dumps({"step": step, "kind": "train"}) + "\n" for step in (1, 2))
  (tmp_path / "metrics.jsonl").write_text(lines)
  metrics.Metrics(tmp_path, 0).write(1, "train", {"loss": 0.5})
  assert (
    "has metrics up to step 2 and no checkpoint: the run starts over" in capsys.readouterr().err
  )
  (copy,) = tmp_path.glob("metrics.jsonl.before_*")
  assert copy.read_text() == lines
  assert [line["step"] for line in metrics.read(tmp_path)] == [1]
  metrics.Metrics(tmp_path, 1)  # which goes on
  assert list(tmp_path.glob("metrics.jsonl.before_*")) == [copy]
