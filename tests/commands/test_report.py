"""`--report` of evaluate."""

import pathlib

import pytest
import tiny
from command_lines import run

from asvit_jax.core.errors import InputError

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")


@pytest.fixture
def options(tmp_path, folder):
  weights = tmp_path / "weights.safetensors"
  params = tiny.with_thresholds(
    tiny.TRAINED, tiny.params(tiny.TRAINED), tiny.images(tiny.TRAINED, 6), (0.7, 0.5, 0.3)
  )
  tiny.network(tiny.TRAINED, variant="tiny").with_params(params).save(weights)
  recipe = tiny.write_recipe(tmp_path / "recipe.py", folder)
  return ("--config", recipe, "--weights", weights)


def test_evaluate_writes_a_page_and_says_where(options, tmp_path):
  given = ("--report", tmp_path / "a" / "report", "--report-images", 5)
  result = run("evaluate", *options, *given)
  path = pathlib.Path(result["report"])
  assert path == tmp_path / "a" / "report" / "index.html"
  assert path.read_text("utf-8").count('"jpeg":') == 5
  assert result == run("evaluate", *options) | {
    "report": str(path),
    "images_per_s": result["images_per_s"],
  }


def test_where_no_page_can_be_written_it_says_so_first(options, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot write to the report"):
    run("evaluate", *options, "--report", tmp_path / "file", "--config.data.dir=nowhere")
