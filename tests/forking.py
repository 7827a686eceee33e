"""Many command lines from one process that has imported what they need: each in a child of it."""

import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from typing import NamedTuple

import processes


class Outcome(NamedTuple):
  """How a command line ended: its exit status, None where it took too long, and what it said."""

  status: int | None
  stdout: str
  stderr: str


def outcomes(command_lines, seconds=60):
  """Runs command lines of `asvit`, one after the other.

  Args:
    command_lines: lists of arguments, such as ["train", "--config", "digits"].
    seconds: that each may take.

  Returns:
    List of `Outcome`.
  """
  said = processes.succeed("-m", "forking", input=json.dumps([command_lines, seconds]))
  return [Outcome(*found) for found in json.loads(said)]


def _run(arguments, seconds):
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    child = os.fork()
    if child == 0:
      _become(arguments, out, err)
    status, end = None, time.monotonic() + seconds
    while status is None and time.monotonic() < end:
      ended, code = os.waitpid(child, os.WNOHANG)
      status = os.waitstatus_to_exitcode(code) if ended else time.sleep(0.01)
    if status is None:
      os.kill(child, 9)
      os.waitpid(child, 0)
    for file in (out, err):
      file.seek(0)
    return Outcome(status, *(file.read().decode("utf-8", "replace") for file in (out, err)))


def _become(arguments, out, err):
  """Ends this process as the command line."""
  from asvit_jax import commands

  os.dup2(out.fileno(), 1)
  os.dup2(err.fileno(), 2)
  sys.argv = ["asvit", *arguments]
  status = 0
  try:
    commands.main()
  except SystemExit as leaving:
    status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
  except BaseException:
    traceback.print_exc()
    status = 111
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  os._exit(status)


def _main():
  # What commands import, but no backend of JAX: its threads would not be in the children.
  import asvit_jax.config.rules
  import asvit_jax.evaluation.accuracy
  import asvit_jax.training.train  # noqa: F401

  warnings.simplefilter("ignore")
  command_lines, seconds = json.load(sys.stdin)
  print(json.dumps([_run(arguments, seconds) for arguments in command_lines]))


if __name__ == "__main__":
  _main()
