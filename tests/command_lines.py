"""The command lines: as users run them, in processes, or faster, in this one."""

import importlib
import json
import sys
from unittest import mock

import processes
from absl import flags

from asvit_jax.core import command, outputs

ERROR = "error: "


def call(*arguments, devices=1, cwd=processes.REPOSITORY):
  """Runs Python with these arguments; returns what `processes.run` does."""
  return processes.run(*arguments, devices=devices, cwd=cwd)


def answer(*arguments, **options):
  """As `call`, which must end well; returns the JSON of the last line of stdout."""
  process = call(*arguments, **options)
  assert process.returncode == 0, process.stderr[-5000:]
  return json.loads(process.stdout.splitlines()[-1])


def assert_one_error(process, *said):
  """Exit status 2, nothing on stdout, one line that says what was wrong, and no traceback."""
  errors = [line for line in process.stderr.splitlines() if line.startswith(ERROR)]
  assert len(errors) == 1, process.stderr
  for text in said:
    assert text in errors[0]
  assert "Traceback" not in process.stderr
  assert (process.returncode, process.stdout) == (2, "")


def run(name, *arguments):
  """The command `name` in this process; returns its result, or raises its InputError."""
  module = importlib.import_module(f"asvit_jax.commands.{name}")
  before = set(flags.FLAGS)
  argv = [name, *map(str, arguments)]
  try:
    with mock.patch.object(sys, "argv", argv):  # where --config looks for its keys
      module.define_flags()
      rest = flags.FLAGS(argv)[1:]
  finally:
    ours = set(flags.FLAGS) - before  # what `main` imports defines others, which stay
  try:
    outputs.check(command._INPUTS, rest)
    return module.main(rest)
  finally:
    for flag in ours:
      delattr(flags.FLAGS, flag)
