"""The structure of the package: imports run one way, and what is installed is what is there."""

import ast
import re
import tomllib

import pytest

# From the bottom up; a module may import from its own layer and from those before it.
LAYERS = (
  "core",
  "data",
  "vit",
  "sparsity",
  "pacing",
  "losses",
  "optimizers",
  "run",
  "config",
  "weights",
  "export",
  "network",
  "evaluation",
  "report",
  "training",
  "targets",
  "comparison",
  "reference",
  "measure",
  "commands",
)
# `python -m asvit_jax.NAME`.
TOP = {"__main__", "api", "parity", "quickstart", "visualize"}


@pytest.fixture(scope="module")
def edges(repository):
  """[(file, its layer, layer that it imports)], imports inside functions and names included."""
  found = []
  package = repository / "asvit_jax"
  for path in sorted(package.rglob("*.py")):
    layer = path.relative_to(package).parts[0].removesuffix(".py")
    text = path.read_text()
    if '__name__ == "__main__"' in text:  # a command line beside what it is about
      layer = "commands"
    tree = ast.parse(text)
    names = set()
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom) and node.module == "asvit_jax":
        names |= {f"asvit_jax.{alias.name}" for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and node.module:
        names.add(node.module)
      elif isinstance(node, ast.Import):
        names |= {alias.name for alias in node.names}
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        # The places of parts in tables.
        names |= set(re.findall(r"^(asvit_jax[\w.]+):\w+$", node.value))
    for name in names:
      if name.startswith("asvit_jax."):
        found.append((str(path.relative_to(package)), layer, name.split(".")[1]))
  assert len(found) > 100
  return found


def test_no_import_runs_upward(edges):
  order = {layer: i for i, layer in enumerate(LAYERS)}
  order |= {"api": order["commands"] - 0.5}
  upward = [edge for edge in edges if edge[1] in order and order[edge[2]] > order[edge[1]]]
  assert upward == []


def test_every_file_is_in_a_layer(edges):
  assert {layer for _, layer, _ in edges} - TOP - {"__init__"} <= set(LAYERS)
  assert {target for _, _, target in edges} - {"api"} <= set(LAYERS)


def test_below_the_plan_nothing_takes_a_config(repository):
  """A config is what people write; all the rest reads the `Plan` that `resolve` makes of it."""
  package = repository / "asvit_jax"
  boundary = ("api.py", "training/train.py", "core/command.py", "core/recipes.py")
  may = {package / name for name in (*boundary, "weights/formats/hub_config.py")}  # the hub's own
  found = []
  for path in sorted(package.rglob("*.py")):
    text = path.read_text()
    layer = path.relative_to(package).parts[0]
    if layer in ("config", "commands") or path in may or '__name__ == "__main__"' in text:
      continue
    for node in ast.walk(ast.parse(text)):
      taken = [a.arg for a in node.args.args] if isinstance(node, ast.FunctionDef) else []
      imported = getattr(node, "module", "") or ""
      if "config" in taken or imported.startswith("ml_collections"):
        found.append(f"{path.relative_to(package)}:{node.lineno}")
  assert found == []


def test_what_is_installed_is_what_is_there(repository):
  project = tomllib.loads((repository / "pyproject.toml").read_text())
  listed = set(project["tool"]["setuptools"]["packages"])
  package = repository / "asvit_jax"
  there = {
    ".".join(path.parent.relative_to(repository).parts) for path in package.rglob("__init__.py")
  }
  assert listed == there | {"asvit_jax.recipes"}
  assert project["tool"]["setuptools"]["package-dir"] == {"asvit_jax.recipes": "configs"}
