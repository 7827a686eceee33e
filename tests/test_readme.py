import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def run_examples(page):
  """Runs the Python of a page, one example after the other; returns its names."""
  names = {}
  for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
    exec(compile(example, str(page), "exec"), names)
  return names


def test_the_first_example_prunes_a_network(tmp_path, monkeypatch, capsys, short_ladders):
  monkeypatch.chdir(tmp_path)
  tiny.network(tiny.arch()).dense.save("deit_small.safetensors")
  Path("photos").mkdir()
  for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), np.uint8)):
    Image.fromarray(pixels).save(f"photos/{i}.png")
  network = run_examples(README)["network"]
  assert network.arch.reduction == "merge_tokens"
  assert network.prunes
  assert Path("pruned.safetensors").is_file()
  assert capsys.readouterr().out.startswith("[[")


def test_the_examples_for_python_run_one_after_the_other(
  tmp_path, monkeypatch, capsys, short_ladders
):
  monkeypatch.chdir(tmp_path)
  names = run_examples(ROOT / "docs" / "python.md")
  assert names["outputs"].logits.shape == (8, 10)
  said = capsys.readouterr().out
  assert "(8, 10)" in said
  assert "(8, 65, 64) [" in said
  assert names["same"].prunes
  np.testing.assert_allclose(
    names["probabilities"](names["same"], names["images"]).sum(-1), 1, 1e-5
  )
  assert (tmp_path / "digits.zip").is_file()
  assert (tmp_path / "digits.zip.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_link_into_the_repository_leads_somewhere(page):
  for target in LINK.findall(page.read_text()):
    assert target.startswith("https://") or (page.parent / target).exists(), target
