"""The commands, one module each, and their launcher: `asvit COMMAND …`.

`main` is the program `asvit`; `run` starts one command by name, for the scripts of a checkout
(`python train.py`) and for `python -m asvit_jax.NAME`.

The module of a command has `define_flags()`, `main(arguments)`, which returns the result for the
last line of stdout, and `ARGUMENTS = (least, most)`, the number of positional arguments it takes.
Modules import quickly, so that `--help` is fast; `main` imports what it needs.
"""

import contextlib
import importlib
import os
import sys

from absl import flags

from asvit_jax.core import command, recipes, stopping, streams
from asvit_jax.core.nearest import hint
from asvit_jax.core.printable import error_line

# {name: description for `asvit --help`}.
COMMANDS = {
  "train": "trains a dense or a pruned network; rerun, resumes where it stopped",
  "evaluate": "measures accuracy, GMACs and kept tokens; calibrates thresholds",
  "compare": "compares ways to run on fewer tokens at the same GMACs: accuracy, speed",
  "predict": "classifies image files",
  "export": "writes an artifact for other programs",
  "benchmark": "times dense, masked and packed execution",
  "measure": "measures this machine in ten minutes: correctness and speed of every execution",
  "visualize": "draws the tokens that a network keeps, or the curves of a run",
  "parity": "compares the implementation with reference numbers of the authors' code",
  "quickstart": "trains a dense and a pruned network on the embedded data and shows both",
}


def run(name):
  """Runs the command `name` with this process's arguments; Ctrl-C ends it with one line."""
  streams.prepare()
  with stopping.interruptible():
    _run(name)


def _run(name):
  module = importlib.import_module(f"asvit_jax.commands.{name}")
  sys.modules["__main__"].__doc__ = module.__doc__  # absl prints this for --help
  before = set(flags.FLAGS)
  with command.parsing(_config_keys):  # may load the config of --workdir
    module.define_flags()
  for flag in set(flags.FLAGS) - before:  # absl lists these flags for --help
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[flag])
  command.run(module.main, *module.ARGUMENTS, known_keys=_config_keys)


def _config_keys():
  """{key of every config: its type and range in words}, for errors about keys and values."""
  from asvit_jax.config import base, ranges
  from asvit_jax.config.keys import flatten

  return {key: ranges.of(key).expected for key in flatten(base())}


def main():
  """The command line `asvit NAME …`: runs the command of that name."""
  streams.prepare()
  if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
    lines = [f"  {name:11}{what}" for name, what in COMMANDS.items()]
    asked = len(sys.argv) > 1 and sys.argv[1] in ("--help", "-h", "help")
    out = sys.stdout if asked else sys.stderr
    with streams.printing() if asked else contextlib.suppress(OSError, ValueError):
      print("usage: asvit COMMAND [--help] …", *lines, sep="\n", file=out)
      print(f"\nrecipes for --config: {', '.join(recipes.names())}", file=out)
      if len(sys.argv) > 1 and not asked:
        said = f"{sys.argv[1]!r} is not known{hint(sys.argv[1], COMMANDS)}"
        print(error_line(f"command {said}"), file=out)
    sys.exit(0 if asked else 2)
  if os.getcwd() not in sys.path:
    # For users' own parts, `my_parts:score`. Appended last, so that no file of a downloaded
    # directory can shadow a library.
    sys.path.append(os.getcwd())
  name = sys.argv.pop(1)
  sys.argv[0] = f"{sys.argv[0]} {name}"
  run(name)
