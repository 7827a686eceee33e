import ast
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from test_layers import LAYERS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"\[`([A-Za-z_][\w.]*)`\]\(([^)#]+\.py)\)")  # what is in a file, by its name
SECTION = re.compile(r"\]\(([^)#]*)#([^)]+)\)")
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


@pytest.mark.slow
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


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_link_to_a_section_leads_to_one(page):
  for target, section in SECTION.findall(page.read_text()):
    if not target.startswith("https://"):
      linked = page.parent / target if target else page
      headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
      assert section in {anchor(heading) for heading in headings}, (target, section)


def anchor(heading):
  """What GitHub calls a heading in links."""
  return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_what_a_link_names_is_in_the_file_that_it_leads_to(page):
  for name, target in NAMED.findall(page.read_text()):
    if name != Path(target).name:
      assert name in defined((page.parent / target).read_text()), (name, target)


def defined(code):
  """The functions and classes of a module, and Class.method of its methods."""
  kinds = (ast.FunctionDef, ast.ClassDef)
  found = {node.name: node for node in ast.parse(code).body if isinstance(node, kinds)}
  return set(found) | {
    f"{name}.{method.name}"
    for name, node in found.items()
    for method in node.body
    if isinstance(node, ast.ClassDef) and isinstance(method, ast.FunctionDef)
  }


def test_the_method_links_to_its_functions():
  named = {name for name, _ in NAMED.findall((ROOT / "docs" / "method.md").read_text())}
  assert named >= {"ClassAttention", "straight_through_gate", "Softmax.masked", "Calibrator"}


def test_how_it_works_lists_every_folder_in_the_order_of_imports():
  page = (ROOT / "docs" / "how_it_works.md").read_text()
  assert re.findall(r"\[(\w+)/\]\(\.\./asvit_jax/\1\)", page) == list(LAYERS)
