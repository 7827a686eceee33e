"""A block that must not hang: what a fault would make hours, and otherwise takes milliseconds."""

import contextlib
import time

SECONDS = 60  # no measure of speed: a slow and busy machine is within it, too


@contextlib.contextmanager
def never():
  """A block that ends, in an error or none, within `SECONDS`."""
  begun = time.monotonic()
  try:
    yield
  finally:
    assert time.monotonic() - begun < SECONDS
