"""Progress of long work, on stderr."""

import contextlib
import sys
import time

from asvit_jax.core.printable import printable


def log(message):
  """Prints a line of progress to stderr; if that fails, work continues silently.

  Untrusted characters are escaped, see `printable`.
  """
  if sys.stderr is None:  # closed before Python started; `print` would use stdout instead
    return
  # OSError: a full disk, a reader that ended, a closed terminal. ValueError: a closed stream.
  with contextlib.suppress(OSError, ValueError):
    print(printable(message), file=sys.stderr, flush=True)


_said = set()


def log_once(kind, message):
  """Logs a message unless one of the same kind was logged in this process."""
  if kind not in _said:
    _said.add(kind)
    log(message)


class Progress:
  """Reports work done and the estimated time left, at most once every `every` seconds."""

  def __init__(self, what, total, every=5.0):
    self.what, self.total, self.every = what, total, every
    self.start = self.last = time.monotonic()

  def update(self, done):
    """Reports that `done` of `total` is done."""
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
