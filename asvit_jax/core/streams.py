"""A command's stdout and stderr: closed, full, or without a reader.

If stderr cannot be written, its lines are lost and work continues. If stdout cannot be written, the
result is lost: the command reports this and fails.
"""

import contextlib
import json
import os
import sys

from asvit_jax.core.plain import plain
from asvit_jax.core.printable import error_line
from asvit_jax.core.progress import log

_closed = set()  # names of streams that were closed when the process started


def prepare():
  """Opens the null device for standard streams that were closed when the process started.

  Otherwise a file opened later would get their number and receive what libraries print; and Python
  would print to stdout what is meant for a missing stderr.
  """
  for number in (0, 1, 2):
    try:
      os.fstat(number)
    except OSError:
      opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
      os.set_inheritable(opened, True)
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is None:
      _closed.add(name)
      setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    elif hasattr(stream, "reconfigure"):  # help texts contain characters outside ASCII
      stream.reconfigure(errors="backslashreplace")


def say(result):
  """Prints a result as the last line of stdout, as plain JSON; see `plain`."""
  with _checked():
    if "stdout" in _closed:
      raise OSError("it is closed")
    print(json.dumps(plain(result), allow_nan=False), flush=True)


@contextlib.contextmanager
def printing():
  """A context after which stdout is flushed; if that fails, the process ends with one line."""
  with _checked():
    yield
    sys.stdout.flush()


@contextlib.contextmanager
def flushed():
  """As `printing`, also when the block raises or exits."""
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
    said = f"stdout cannot be written ({reason}): redirect it to a file or a pipe"
    log(error_line(said))
    sys.exit(1)


def _give_up():
  """Discards what stdout still buffers, which Python would try to write again at exit."""
  with contextlib.suppress(OSError, ValueError):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
