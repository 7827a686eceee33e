"""What long work says of itself, on stderr."""

import contextlib
import sys
import time

from asvit_jax.core.printable import printable


def log(message):
  """A line of progress, on stderr; where that cannot be written, work goes on in silence.

  See `printable` for what names in it may hold.
  """
  if sys.stderr is None:  # it was closed when Python began, and `print` would take stdout
    return
  # A full disk, a reader that has gone, a terminal that was closed; a stream closed in Python.
  with contextlib.suppress(OSError, ValueError):
    print(printable(message), file=sys.stderr, flush=True)


_said = set()


def log_once(kind, message):
  """`log`, of all messages of a kind the first in this process."""
  if kind not in _said:
    _said.add(kind)
    log(message)


class Progress:
  """Counts work done and says, at most once every `every` seconds, how long the rest will take."""

  def __init__(self, what, total, every=5.0):
    self.what, self.total, self.every = what, total, every
    self.start = self.last = time.monotonic()

  def update(self, done):
    """Reports `done` of `total`."""
    now = time.monotonic()
    if now - self.last < self.every and done < self.total:
      return
    self.last = now
    eta = (now - self.start) / max(done, 1) * (self.total - done)
    log(f"{self.what} {done}/{self.total}  eta {duration(eta)}")


def duration(seconds):
  """Seconds as 1:02:03 or 2:03."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
