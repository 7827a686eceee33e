"""Checks afterwards that a block took no more than a minute.

It is for what takes milliseconds, and would take hours if it were wrong.
"""

import contextlib
import time

SECONDS = 60  # no measure of speed: a slow and busy machine is within it, too


@contextlib.contextmanager
def never():
  """A block that must end, in an error or none, within `SECONDS`."""
  begun = time.monotonic()
  try:
    yield
  finally:
    assert time.monotonic() - begun < SECONDS
