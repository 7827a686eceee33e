"""A command's stdout and stderr: closed, full, or with a reader that has gone.

What stderr cannot take is lost, and work goes on. What stdout cannot take is the result: the
command says so and fails.
"""

import contextlib
import json
import os
import sys

from asvit_jax.core.plain import plain
from asvit_jax.core.printable import error_line
from asvit_jax.core.progress import log

_closed = set()  # names of streams that the process began without


def prepare():
  """Opens the null device for the standard streams that the process began without.

  A file opened later would otherwise get their number, and what libraries print would go into it;
  and Python prints to stdout what is meant for a stderr that it does not have.
  """
  for number in (0, 1, 2):
    try:
      os.fstat(number)
    except OSError:
      opened = os.open(os.devnull, os.O_RDWR)  # it gets the least number that is free: this one
      os.set_inheritable(opened, True)
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is None:
      _closed.add(name)
      setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    elif hasattr(stream, "reconfigure"):  # a help text has signs that ASCII does not have
      stream.reconfigure(errors="backslashreplace")


def say(result):
  """Prints a result as the last line of stdout: JSON that any reader understands, see `plain`."""
  with _checked():
    if "stdout" in _closed:
      raise OSError("it is closed")
    print(json.dumps(plain(result), allow_nan=False), flush=True)


@contextlib.contextmanager
def printing():
  """Where what is printed to stdout gets there, or the process fails in one line."""
  with _checked():
    yield
    sys.stdout.flush()


@contextlib.contextmanager
def flushed():
  """Where what was printed to stdout is written by the end, or the process fails in one line."""
  try:
    yield
  finally:
    with _checked():
      sys.stdout.flush()


@contextlib.contextmanager
def _checked():
  try:
    yield
  except (OSError, ValueError) as error:
    _give_up()
    reason = getattr(error, "strerror", None) or error
    said = f"stdout cannot take what is said there ({reason}): send it to a file or a pipe that can"
    log(error_line(said))
    sys.exit(1)


def _give_up():
  """Lets go what stdout holds, which Python would try to write once more at its end."""
  with contextlib.suppress(OSError, ValueError):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
