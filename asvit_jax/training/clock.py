"""How fast a run is."""

import contextlib
import time


class Clock:
  """Times the steps between two reports; evaluations and checkpoints do not count.

  Args:
    step: the last one that was done.
  """

  def __init__(self, step):
    self.restart(step)

  def restart(self, step):
    """Begins to count after `step`."""
    self._step, self._since, self._waited = step, time.perf_counter(), 0.0

  @contextlib.contextmanager
  def waiting(self):
    """The block is waiting for data."""
    asked = time.perf_counter()
    yield
    self._waited += time.perf_counter() - asked

  def rates(self, step):
    """(steps a second, share of the time that was waiting), up to `step`; then begins anew."""
    now = time.perf_counter()
    seconds, steps, waited = now - self._since, step - self._step, self._waited
    self._step, self._since, self._waited = step, now, 0.0
    return steps / seconds, waited / seconds
