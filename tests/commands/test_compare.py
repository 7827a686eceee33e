import json
import re

import pytest
import tiny
from command_lines import run
from PIL import Image

from asvit_jax.comparison import timing
from asvit_jax.core.errors import InputError

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")


@pytest.fixture
def given(folder, tmp_path):
  """Flags that compare random weights on 10 images; and 24 to train on."""
  weights = tmp_path / "w.safetensors"
  tiny.network(tiny.TRAINED, variant="tiny").dense.save(weights)
  model = {"variant": "tiny", "num_classes": 3, "image_size": 16, "patch_size": 4}
  return (
    *("--config", "configs/digits.py", "--weights", weights),
    *(f"--config.model.{key}={value}" for key, value in model.items()),
    *("--config.data.name=folder", f"--config.data.dir={folder}"),
    *("--config.eval.batch_size=5", "--config.batch_size=8", "--config.total_steps=2"),
  )


@pytest.mark.slow
def test_it_ends_with_a_table_a_picture_and_the_results(tmp_path, given, capsys):
  out = tmp_path / "out"
  result = run(
    *("compare", *given, "--out", out, "--budgets", "0.8,0.6", "--methods", "tome"),
    *("--finetune", "--rounds", 1, "--speed-batch", 4),
  )
  assert set(result) == {"out", "dense", "results"}
  lines = [(row["budget"], row["method"], row["finetuned"]) for row in result["results"]]
  assert lines == [(b, "tome", f) for b in (0.8, 0.6) for f in (False, True)]
  assert {"top1", "agreement", "gmacs", "share", "real_gmacs", "real_share", "images"} <= set(
    result["results"][0]
  )
  saved = json.loads((out / "results.json").read_text())
  assert saved == {key: result[key] for key in ("dense", "results")}
  table = (out / "table.md").read_text()
  assert sum(line.startswith("| tome | 0.6 |") for line in table.splitlines()) == 2
  assert table in capsys.readouterr().err
  with Image.open(out / "compare.png") as picture:
    assert picture.format == "PNG"


def slow(*values):
  """Parameters for `make test-all`."""
  return pytest.param(*values, marks=pytest.mark.slow)


def by_cost(timer, contenders, rounds):
  """In place of `Timer.time`: as fast as the fixed counts are cheap."""
  speeds = {"dense": 1.0}
  for contender in contenders:
    speeds[contender.name] = contender.network.dense_gmacs / float(contender.gmacs()[0])
  summary = {"ms": 1.0, "spread_ms": 0.0, "images_per_s": float(rounds)}
  return {name: summary | {"speedup": speed} for name, speed in speeds.items()}


@pytest.mark.slow
def test_speed_ups_alone_are_compared_at_these_only(tmp_path, given, capsys, monkeypatch):
  monkeypatch.setattr(timing.Timer, "time", by_cost)
  out = tmp_path / "out"
  flags = ("--speedups", "1.5,40", "--methods", "random,tome", "--rounds", 2)
  result = run("compare", *given, "--out", out, *flags, "--report", tmp_path / "page")
  assert set(result) == {"out", "report", "dense", "results", "missed"}
  assert {row["asked_speedup"] for row in result["results"]} == {1.5}
  assert {row["method"] for row in result["results"]} == {"random", "tome"}
  never = [one for one in result["missed"] if one["asked_speedup"] == 40]
  assert [one["method"] for one in never] == ["random", "tome"]
  assert not any(one["compared"] for one in never)
  saved = json.loads((out / "results.json").read_text())
  assert saved == {key: result[key] for key in ("dense", "results", "missed")}
  table = (out / "table.md").read_text()
  assert sum(line.startswith("| tome | 1.5 | 0.") for line in table.splitlines()) == 1
  for one in never:
    assert one["said"].startswith(f"{one['method']} cannot reach 40: at most ")
    assert f"- {one['said']}" in table
  text = (tmp_path / "page" / "index.html").read_text("utf-8")
  page = json.loads(re.search(r'(?s)id="data">(.*?)</script>', text)[1])
  assert never[0]["said"] in page["summary"]
  assert [chart["log_y"] for chart in page["charts"]] == [False, True]

  both = run("compare", *given, "--out", out, *flags, "--budgets", "0.7")
  asked = [(row["budget"] == 0.7, row.get("asked_speedup")) for row in both["results"]]
  assert asked == [(True, None)] * 2 + [(False, 1.5)] * 2
  keys = ("budget", "top1", "kl", "speedup")
  assert [[row[key] for key in keys] for row in both["results"][2:]] == [
    [row[key] for key in keys] for row in result["results"]
  ]


@pytest.mark.slow
def test_speed_ups_are_timed_on_a_real_clock(tmp_path, given):
  """On which a tiny network may reach none: each is compared, or it is said why not."""
  flags = ("--speedups", "1.02", "--methods", "random,merge", "--rounds", 1, "--speed-batch", 4)
  result = run("compare", *given, "--out", tmp_path, *flags)
  compared = {row["method"] for row in result["results"]}
  never = {one["method"] for one in result["missed"] if not one["compared"]}
  assert compared | never == {"random", "merge"}
  assert not compared & never
  assert all(row["speedup"] > 0 and row["asked_speedup"] == 1.02 for row in result["results"])


@pytest.mark.slow
@pytest.mark.parametrize(
  ("flags", "budgets"),
  [
    ((), {0.65, 0.5}),
    slow(("--config.budget=0.7",), {0.7}),
    slow(("--config.budget=0.7", "--budgets", "0.8,0.6"), {0.8, 0.6}),
    slow(("--config.budget=0.7", "--speedups", "1.5"), set()),
    (("--config.budget=0.7", "--speedups", "1.5", "--budgets", "0.8"), {0.8}),
  ],
)
def test_budgets_are_those_given_or_the_config_s_own(tmp_path, given, monkeypatch, flags, budgets):
  monkeypatch.setattr(timing.Timer, "time", by_cost)
  methods = ("--methods", "random", "--rounds", 1)
  result = run("compare", *given, "--out", tmp_path / "out", *methods, *flags)
  asked = {row.get("asked_speedup") for row in result["results"]}
  assert asked == ({None} if budgets else set()) | ({1.5} if "--speedups" in flags else set())
  assert {row["budget"] for row in result["results"] if "asked_speedup" not in row} == budgets


def test_a_recipe_s_argument_is_the_budget_that_is_compared_at(tmp_path, given):
  recipe = ("--config", "configs/as_digits.py:0.6", *given[2:], "--methods", "random")
  result = run("compare", *recipe, "--out", tmp_path / "out", "--rounds", 0)
  assert [row["budget"] for row in result["results"]] == [0.6]


@pytest.mark.slow
def test_by_default_no_method_is_measured_twice(tmp_path, given):
  result = run("compare", *given, "--out", tmp_path, "--budgets", "0.7", "--rounds", 0)
  measured = [row["method"] for row in result["results"]]
  assert measured.count("drop_fixed") == 1 and "top_k" not in measured
  alone = ("--budgets", "0.7", "--rounds", 0, "--methods", "top_k")
  (row,) = run("compare", *given, "--out", tmp_path, *alone)["results"]
  same = next(r for r in result["results"] if r["method"] == "drop_fixed")
  assert row["method"] == "top_k"
  assert (row["counts"], row["kl"], row["top1"]) == (same["counts"], same["kl"], same["top1"])


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (("--speedups", "1.5,x"), "--speedups '1.5,x': expected how many times as fast"),
    (("--speedups", ""), "--speedups '': expected how many times as fast"),
    (("--speedups", "1.5,1"), "--speedups '1.5,1': .*, each above 1"),
    (("--speedups", "0.5"), "--speedups '0.5': .*, each above 1"),
    (("--speedups", "nan"), "--speedups 'nan': .*, each above 1"),
    (("--speedups", "1e999"), "--speedups '1e999': .*, each above 1"),
    (("--speedups", "1.5,1.50"), "--speedups '1.5,1.50': give every speed-up once"),
    (("--speedups", "1.5", "--rounds", 0), "--rounds 0 times nothing"),
    (("--speedups", "1.5", "--methods", "drop,tom"), "--methods 'tom' is not known"),
    (("--speedups", "1.5", "--methods", "merge", "--config.data.train_split=none"), "none"),
    (("--speedups", "1.5", "--methods", "tome", "--budgets", "0.02"), "cannot be met by ToMe"),
    (("--methods", "drop,tom"), "--methods 'tom' is not known: choose from drop, merge"),
    (("--methods", ""), "--methods is empty"),
    (("--methods", "tome", "--budgets", "0.6,x"), "--budgets '0.6,x': expected shares"),
    (("--methods", "tome", "--budgets", "0.02"), r"budget 0\.02 cannot be met by ToMe"),
    (("--methods", "drop", "--budgets", "1.5"), r"--budgets 1\.5 is not in \(0, 1\]"),
    (("--methods", "tome", "--finetune", "--config.data.train_split=none"), "none"),
    (("--methods", "merge", "--config.data.train_split=none"), "none"),
    (("--methods", "tome", "--finetune", "--config.optimizer.lr=0.0"), r"optimizer\.lr 0\.0"),
    (("--methods", "tome", "--config.data.eval_split=none"), "none"),
  ],
)
def test_bad_input_is_refused_before_anything_is_measured(tmp_path, given, flags, said):
  out = tmp_path / "out"
  with pytest.raises(InputError, match=said):
    run("compare", *given, "--out", out, *flags)
  assert not out.exists()


def test_without_training_data_methods_of_fixed_counts_still_compare(tmp_path, given):
  flags = ("--methods", "random", "--budgets", "0.6", "--rounds", 0)
  out = ("--out", tmp_path, "--config.data.train_split=none")
  classes = tmp_path / "classes.txt"
  classes.write_text("ant\nbee\ncat")
  result = run("compare", *given, *flags, *out, f"--config.data.classes={classes}")
  assert [row["method"] for row in result["results"]] == ["random"]
  assert "images_per_s" not in result["dense"]


@pytest.mark.slow
def test_a_report_is_a_page_of_the_methods_and_of_what_one_of_them_keeps(tmp_path, given):
  flags = ("--methods", "random,merge", "--budgets", "0.8,0.6", "--rounds", 0)
  report = ("--report", tmp_path / "page", "--report-images", 7)
  result = run("compare", *given, *flags, "--out", tmp_path / "out", *report)
  assert result["report"] == str(tmp_path / "page" / "index.html")
  text = (tmp_path / "page" / "index.html").read_text("utf-8")
  page = json.loads(re.search(r'(?s)id="data">(.*?)</script>', text)[1])
  (table,) = page["tables"]
  assert [row[0] for row in table["rows"]] == ["random", "merge", "random", "merge", "dense"]
  top1 = [column["name"] for column in table["columns"]].index("top-1, %")
  rows = [*result["results"], result["dense"]]
  assert [row[top1] for row in table["rows"]] == [row["top1"] for row in rows]
  assert "images: merge at 0.6, without training" in page["summary"]
  assert len(page["gallery"]["pictures"]) == 7


@pytest.mark.slow
def test_methods_of_fixed_counts_alone_have_a_page_without_images(tmp_path, given):
  flags = ("--methods", "random", "--budgets", "0.6", "--rounds", 0, "--report", tmp_path / "page")
  run("compare", *given, *flags, "--out", tmp_path / "out")
  text = (tmp_path / "page" / "index.html").read_text("utf-8")
  page = json.loads(re.search(r'(?s)id="data">(.*?)</script>', text)[1])
  assert page["gallery"] is None


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, given):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write to the report"):
    run("compare", *given, "--out", tmp_path / "out", "--report", tmp_path / "file" / "page")
  assert not (tmp_path / "out").exists()
