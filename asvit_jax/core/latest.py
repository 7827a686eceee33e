"""A background thread that processes only the most recent value."""

import concurrent.futures
import threading

_NOTHING = object()


class Latest:
  """Calls a function, on a thread of its own, with the latest value given; skips outdated values.

  Args:
    function: called with one value. Its errors are raised by the next `give` or `wait`.
  """

  def __init__(self, function):
    self._function = function
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._lock = threading.Lock()
    self._value, self._running, self._future = _NOTHING, False, None

  def give(self, value):
    """Schedules a call with a value; a later value may replace it before the call starts."""
    with self._lock:
      self._value = value
      if self._running:
        return
      self._running, before = True, self._future
      self._future = self._thread.submit(self._run)
    if before is not None:
      before.result()

  def wait(self):
    """Returns once the function has been called with the last value given."""
    if self._future is not None:
      self._future.result()

  def _run(self):
    while True:
      with self._lock:
        value, self._value = self._value, _NOTHING
        if value is _NOTHING:
          self._running = False
          return
      try:
        self._function(value)
      except BaseException:
        with self._lock:
          self._running = False
        raise
