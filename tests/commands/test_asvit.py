"""`asvit`, and every other way to a command line."""

import importlib
import json
import re

import pytest
from command_lines import assert_one_error, call

from asvit_jax.commands import COMMANDS
from asvit_jax.core import recipes

HEAVY = ("jax", "flax", "orbax", "tensorflow_datasets", "matplotlib", "tensorboard")
# The flags of each command besides absl's own.
FLAGS = {
  "train": {"config", "workdir", "[no]dry-run", "target", "parts"},
  "evaluate": {
    *(
      "config",
      "workdir",
      "weights",
      "weights-key",
      "zero-shot",
      "execution",
      "per-image",
      "calibrate",
      "save-weights",
    ),
    *("calibrate-split", "counts", "search", "seed", "budget", "report", "report-images"),
    *("calibrate-speedup", "speed-batch", "speedup", "target"),
    "[no]compare-dense",
    *("step", "weights-of", "per-class", "parts"),
  },
  "compare": {
    *("config", "workdir", "weights", "weights-key", "budgets", "methods", "out", "[no]finetune"),
    *("rounds", "speed-batch", "speedups", "report", "report-images", "step", "weights-of"),
    *("parts", "zero-shot"),
  },
  "predict": {
    *("config", "workdir", "weights", "weights-key", "artifact", "execution", "picture", "budget"),
    *("step", "weights-of", "features", "parts", "speedup", "zero-shot"),
  },
  "export": {
    *("config", "workdir", "weights", "weights-key", "format", "out", "batch", "budget"),
    *("step", "weights-of", "[no]tokens", "opset", "push-to-hub", "results", "[no]private"),
    *("parts", "execution", "speedup", "zero-shot"),
  },
  "benchmark": {
    *("variant", "budget", "batch", "weights", "images", "execution", "rounds", "dtype", "plot"),
    *("reduction", "target", "image-size", "step", "weights-of", "latency", "parts", "speedup"),
  },
  "measure": {"out", "[no]quick", "seconds"},
  "visualize": {
    *("config", "workdir", "weights", "weights-key", "count", "[no]curves", "out", "budget"),
    *("step", "weights-of", "parts", "[no]scores", "zero-shot"),
  },
  "parity": set(),
  "quickstart": set(),
}
# `python WAY` is one, too.
OTHER_WAYS = {
  **{
    f"{n}.py": FLAGS[n] for n in ("train", "evaluate", "predict", "export", "benchmark", "compare")
  },
  **{f"-m asvit_jax.{n}": FLAGS[n] for n in ("parity", "visualize", "quickstart", "measure")},
  "-m asvit_jax.data.convert": {"name", "data-dir", "out"},
  "-m asvit_jax.data.benchmark": {"config", "batches"},
  "-m asvit_jax.targets.check": {"out", "only"},
}


def flags_said(text):
  return set(re.findall(r"^  --([\w\[\]-]+):", text, re.MULTILINE))


def test_without_a_command_the_usage_lists_all_of_them():
  asked, unasked = call("-m", "asvit_jax", "--help"), call("-m", "asvit_jax")
  assert (asked.returncode, asked.stderr) == (0, "")
  assert (unasked.returncode, unasked.stdout) == (2, "")
  for text in (asked.stdout, unasked.stderr):
    for name, what in COMMANDS.items():
      assert re.search(rf"^  {name} +{re.escape(what)}$", text, re.MULTILINE)
    assert all(name in text for name in recipes.names())
    assert "error" not in text


def test_an_unknown_command_is_one_error():
  assert_one_error(call("-m", "asvit_jax", "trian"), "'trian' is not known")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_a_command_does_and_its_flags(name):
  process = call("-m", "asvit_jax", name, "--help")
  module = importlib.import_module(f"asvit_jax.commands.{name}")
  assert process.stdout.startswith(module.__doc__.strip())
  assert flags_said(process.stdout) == FLAGS[name]
  assert process.stderr == ""


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_other_ways_to_the_command_lines_are_there(way):
  process = call(*way.split(), "--help")
  command = way.removeprefix("-m asvit_jax.")
  said = f"asvit {command}" if command in COMMANDS else f"python {way}"
  assert f"{process.stdout.splitlines()[2]} ".startswith(f"{said} ")
  assert flags_said(process.stdout) == OTHER_WAYS[way]
  assert process.stderr == ""


@pytest.mark.parametrize("module", ["asvit_jax.parity", "asvit_jax.visualize"])
def test_bad_input_on_other_ways_is_one_error(module):
  assert_one_error(call("-m", module), "0 positional" if module.endswith("parity") else "--out")


@pytest.mark.parametrize(
  "command", [["train", "--help"], ["evaluate", "--help"], ["train", "--config", "digits"]]
)
def test_what_only_says_how_it_is_used_imports_nothing_heavy(command):
  """Where flags are missing, too."""
  script = (
    "import json, sys\n"
    f"sys.argv = ['asvit', *{command}]\n"
    "from asvit_jax.commands import main\n"
    "try:\n  main()\n"
    f"finally:\n  print(json.dumps([name for name in {HEAVY} if name in sys.modules]))\n"
  )
  assert json.loads(call("-c", script).stdout.splitlines()[-1]) == []


def test_the_start_of_a_command_imports_no_library_of_arrays_or_configs():
  script = (
    "import sys, asvit_jax.commands\n"
    "print([name for name in ('numpy', 'ml_collections', 'jax') if name in sys.modules])\n"
  )
  assert call("-c", script).stdout.strip() == "[]"
