"""Names of files and classes that would move a cursor, begin a formula or end an encoding."""

import json
import os
import re
import unicodedata

import numpy as np
import pytest
import tiny
from command_lines import run
from PIL import Image

from asvit_jax.core import command

# In the order of their labels.
CLASSES = (
  "$x_{$ \x1b]0;title\x07",
  "<b>|`[x](javascript:y)\nnew\r\u202e",
  os.fsdecode(b"z not \xff utf-8 " + b"x" * 150),
)
TINY_LINES = [{"step": 1, "kind": "train", "loss": 1.0, "classification": 1.0, "lr": 0.1}]

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")


@pytest.fixture
def root(tmp_path):
  """A data set of such classes, and images of such names."""
  root = tiny.write_folder(tmp_path / "images", CLASSES, train=1, val=(2, 1, 1))
  for directory in (root / "val").iterdir():
    file = next(directory.iterdir())
    os.rename(file, directory / os.fsdecode(b"a$_{\x1b[2J\n\xff\xc2\x85.jpg"))
  return root


@pytest.fixture
def options(tmp_path, root):
  params = tiny.with_thresholds(
    tiny.TRAINED, tiny.params(tiny.TRAINED), tiny.images(tiny.TRAINED, 6), (0.7, 0.5, 0.3)
  )
  network = tiny.network(tiny.TRAINED, variant="tiny", classes=CLASSES).with_params(params)
  network.save(tmp_path / "weights.safetensors")
  recipe = tmp_path / "recipe.py"
  recipe.write_text(f"import tiny\ndef get_config():\n  return tiny.config({str(root)!r})\n")
  return ("--config", recipe, "--weights", tmp_path / "weights.safetensors")


def assert_plain(text):
  bad = [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp", "Cf")]
  assert not bad
  assert text.encode()


@pytest.mark.slow
def test_every_writer_takes_any_name(options, root, tmp_path, capfd):
  out = {name: tmp_path / name for name in ("image.jsonl", "class.jsonl", "page")}
  result = run(
    *("evaluate", *options, "--report", out["page"], "--report-images", 4),
    *("--per-image", out["image.jsonl"], "--per-class", out["class.jsonl"]),
  )
  assert json.loads(json.dumps(result).encode()) == result
  lines = [json.loads(line) for line in out["class.jsonl"].read_text("utf-8").splitlines()]
  assert [line["class"] for line in lines] == list(CLASSES)  # programs get the names as they are
  lines = [json.loads(line) for line in out["image.jsonl"].read_text("utf-8").splitlines()]
  files = sorted(line["file"] for line in lines)
  assert files == sorted(str(path) for path in (root / "val").glob("*/*"))
  assert (out["page"] / "index.html").read_text("utf-8").count('"jpeg":') == 4
  run("visualize", *options, "--out", tmp_path / "split.png", "--count", 4)
  result = run(
    *("predict", *options, "--picture", tmp_path / "files.png"),
    *("--features", tmp_path / "features.npz", *files),
  )
  assert [line["file"] for line in result["predictions"]] == files
  assert np.load(tmp_path / "features.npz")["files"].tolist() == files
  for picture in ("split.png", "files.png"):
    assert Image.open(tmp_path / picture).size[0] > 500
  said = capfd.readouterr()
  assert_plain(said.err)
  assert "Glyph" not in said.err
  assert said.out == ""
  assert "\\x1b]0;title\\x07" in said.err


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_about_any_name_is_one_line(name, capsys):
  with pytest.raises(SystemExit):
    command._fail(f"{name} is not there")
  said = capsys.readouterr().err
  assert_plain(said)
  assert said.count("\n") == 1


def test_what_libraries_say_of_a_name_is_plain(repository, tmp_path):
  import processes

  script = tmp_path / "tool.py"
  script.write_text(
    "import logging, warnings\n"
    "from asvit_jax.core import command\n"
    "def main(_):\n"
    "  warnings.warn('one \\x1b[2J')\n"
    "  logging.getLogger('x').error('two %s', '\\x1b[2J%d')\n"
    "  raise RuntimeError('three \\x1b[2J \\udcff')\n"
    "command.run(main)\n"
  )
  process = processes.run(script, cwd=repository)
  for word in ("one", "two", "three"):
    assert re.search(rf"{word} \\x1b\[2J", process.stderr), process.stderr
  assert_plain(process.stderr)
  assert process.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("title", ["a\nb\x1b\udcff", "x" * 5000, "雪 $\\frac$"])
def test_titles_and_legends_are_drawn_as_text(title, tmp_path, recwarn):
  from pictures import metrics_lines

  from asvit_jax.report import comparison, curves, speed, tokens

  row = {"gmacs": 1.0, "top1": 50.0, "finetuned": False, "images_per_s": 3.0, "speedup": 1.0}
  compared = {"dense": row, "results": [row | {"method": f"{title}:m", "budget": 0.5}]}
  figures = {
    "curves": curves.draw_curves(metrics_lines(pruned=True), 1.0, title),
    "comparison": comparison.draw_comparison(compared, title),
    "speed": speed.draw_speed({"dense": row, title: row | {"gmacs": 0.5}}, title),
    "tokens": tokens.token_picture(
      np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 1, 4), bool), [title[:50]] * 2, [["a", "b"]]
    ),
  }
  for name, figure in figures.items():
    tokens.save(figure, tmp_path / f"{name}.png")
    width, height = Image.open(tmp_path / f"{name}.png").size
    assert 200 < width < 4000 and 100 < height < 4000
  assert not [w for w in recwarn if "Glyph" in str(w.message)]
