"""The package as pip installs it, where no checkout is."""

import importlib.metadata
import json
import os
import shutil
import subprocess

import numpy as np
import processes
import pytest
import tiny
from command_lines import assert_one_error
from PIL import Image

from asvit_jax import vit
from asvit_jax.core import recipes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """The directory that pip installed to, from a copy, as building leaves files behind."""
  source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
  for name in ("asvit_jax", "configs"):
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(processes.REPOSITORY / name, source / name, ignore=unwanted)
  for pattern in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
    for path in processes.REPOSITORY.glob(pattern):
      shutil.copy(path, source)
  # What pyproject.toml asks for; else pip fetches it.
  own = int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
  options = ("--no-deps", "--target", target, *(["--no-build-isolation"] if own else []))
  process = processes.run("-m", "pip", "install", "--quiet", *options, source)
  if process.returncode and not own:
    pytest.skip(f"there is no setuptools>=77, and pip cannot fetch it: {process.stderr[-300:]}")
  assert process.returncode == 0, process.stderr
  return target


@pytest.fixture
def call(installed, tmp_path):
  """Runs Python with these arguments in an empty directory."""
  place = tmp_path / "empty"
  place.mkdir()

  def call(*arguments):
    return subprocess.run(
      processes.command(*arguments),
      cwd=place,
      env=os.environ | {"PYTHONPATH": str(installed)},
      capture_output=True,
      text=True,
    )

  return call


def test_every_module_and_recipe_is_there(installed):
  def files(directory):
    kinds = (".py", ".html", ".css", ".js")  # the latter are the parts of a report's page
    found = [path for path in directory.rglob("*") if path.suffix in kinds]
    return {str(path.relative_to(directory)) for path in found}

  expected = files(processes.REPOSITORY / "asvit_jax")
  expected |= {f"recipes/{name}" for name in files(processes.REPOSITORY / "configs")}
  assert files(installed / "asvit_jax") == expected


def test_recipes_are_found_without_a_checkout(call, installed):
  script = (
    "import json, sys, asvit_jax\n"
    "from asvit_jax.core import recipes\n"
    "loaded = {name: recipes.load(name).to_json() for name in recipes.names()}\n"
    "print(json.dumps([asvit_jax.__file__, str(recipes.directory()), sys.path, loaded]))\n"
  )
  process = call("-c", script)
  assert process.returncode == 0, process.stderr
  file, directory, path, loaded = json.loads(process.stdout)
  assert file == str(installed / "asvit_jax" / "__init__.py")
  assert directory == str(installed / "asvit_jax" / "recipes")
  assert str(processes.REPOSITORY) not in path
  assert loaded == {name: recipes.load(name).to_json() for name in recipes.names()}


def test_the_script_lists_the_commands_and_recipes(call, installed):
  process = call(installed / "bin" / "asvit", "--help")
  assert process.returncode == 0, process.stderr
  assert "  visualize" in process.stdout
  assert f"recipes for --config: {', '.join(recipes.names())}\n" in process.stdout


@pytest.mark.parametrize("name", ["as_digits:1.5", "configs/as_digits.py:1.5"])
def test_a_recipe_is_named_with_its_argument(call, name):
  process = call("-m", "asvit_jax", "train", "--config", name, "--workdir", "run")
  assert_one_error(process, "budget 1.5 is not in (0, 1]")


def test_every_tool_is_there(call, installed):
  guard = '\nif __name__ == "__main__"'
  files = [p for p in installed.glob("asvit_jax/**/*.py") if guard in p.read_text()]
  tools = {".".join(p.relative_to(installed).with_suffix("").parts) for p in files}
  assert len(tools) >= 9
  process = call("-m", "asvit_jax.targets.process")  # which others start
  assert (process.returncode, process.stderr[:6]) == (1, "error:")
  for tool in sorted(tools - {"asvit_jax.targets.process"}):
    process = call("-m", tool.removesuffix(".__main__"), "--help")
    assert process.stdout, process.stderr
    assert "Traceback" not in process.stderr


def test_tools_work_in_an_empty_directory(call, tmp_path):
  data = tiny.write_folder(tmp_path / "images")
  process = call(
    *("-m", "asvit_jax.data.benchmark", "--config", "digits", "--config.data.name=folder"),
    *(f"--config.data.dir={data}", "--config.batch_size=8", "--batches=1"),
    "--config.model.num_classes=3",
  )
  assert process.returncode == 0, process.stderr
  assert json.loads(process.stdout)["images_per_s"] > 0
  reference = processes.REPOSITORY / "tests" / "golden" / "deit_parity.npz"
  process = call("-m", "asvit_jax.parity", reference)
  assert (process.returncode, json.loads(process.stdout)["ok"]) == (0, True)
  assert_one_error(call("-m", "asvit_jax.targets.check", "--only", "abacus"), "matches no check")


def test_predict_works_in_an_empty_directory(call, tmp_path):
  weights, image = tmp_path / "w.safetensors", tmp_path / "image.png"
  tiny.network(vit.VARIANTS["digits"]).dense.save(weights)
  Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(image)
  process = call("-m", "asvit_jax", "predict", "--config=digits", "--weights", weights, image)
  assert process.returncode == 0, process.stderr
  (result,) = json.loads(process.stdout)["predictions"]
  assert len(result["top5"]) == 5
  assert set(result["top5"][0]) == {"label", "class", "probability"}
