"""Accuracy of each class, and what it is taken for."""

import json
import re

import numpy as np
import pytest
import tiny
from command_lines import run

from asvit_jax.evaluation import per_class
from asvit_jax.report import classes


def test_rows_of_the_matrix_are_the_labels():
  matrix = per_class.confusion_matrix([0, 0, 2, 2, 2], [0, 1, 2, 0, 0], 4)
  np.testing.assert_array_equal(matrix, [[1, 1, 0, 0], [0] * 4, [2, 0, 1, 0], [0] * 4])
  np.testing.assert_allclose(per_class.accuracies(matrix), [50, np.nan, 100 / 3, np.nan])
  assert per_class.mean_accuracy(matrix) == pytest.approx((50 + 100 / 3) / 2)


def test_many_classes_show_what_is_confused_most():
  matrix = np.diag(np.full(40, 5))
  matrix[3, 7], matrix[8, 2], matrix[8, 1] = 4, 9, 1
  by_class, pairs = classes.tables(matrix)
  assert by_class.rows[8] == ("8", 15, pytest.approx(100 / 3), "2", 9)
  assert by_class.rows[0] == ("0", 5, 100.0, None, None)
  assert pairs.rows == (("8", "2", 9), ("3", "7", 4), ("8", "1", 1))


def test_evaluate_writes_what_its_images_say(tmp_path, folder):
  weights, lines, per = (tmp_path / name for name in ("w.safetensors", "lines", "classes"))
  tiny.network(tiny.TRAINED.dense, variant="tiny").save(weights)
  result = run(
    *("evaluate", "--weights", weights, "--config.data.dir", folder, "--config.eval.batch_size=5"),
    *("--per-image", lines, "--per-class", per, "--report", tmp_path / "page"),
  )
  images = [json.loads(line) for line in lines.read_text().splitlines()]
  expected = np.zeros((3, 3), int)
  for image in images:
    expected[image["label"], image["prediction"]] += 1
  found = [json.loads(line) for line in per.read_text().splitlines()]
  assert [(line["label"], line["class"]) for line in found] == [(0, "ant"), (1, "bee"), (2, "cat")]
  for line, row in zip(found, expected, strict=True):
    assert line["images"] == row.sum()
    assert line["top1"] == pytest.approx(100 * row[line["label"]] / row.sum())
    assert line["predictions"] == {str(j): n for j, n in enumerate(row) if n}
  top1 = [line["top1"] for line in found]
  assert result["mean_class_top1"] == pytest.approx(np.mean(top1))
  assert "confusion" not in result

  text = (tmp_path / "page" / "index.html").read_text("utf-8")
  data = json.loads(re.search(r'(?s)id="data">(.*?)</script>', text)[1])
  _, by_class, matrix = data["tables"]
  assert [row[:3] for row in by_class["rows"]] == [
    [line["class"], line["images"], line["top1"]] for line in found
  ]
  assert [row[1:] for row in matrix["rows"]] == expected.tolist()
