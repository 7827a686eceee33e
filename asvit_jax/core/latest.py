"""Work on a thread of its own, of which only the latest matters."""

import concurrent.futures
import threading

_NOTHING = object()


class Latest:
  """Calls a function with the latest value given; values that are overtaken are left out.

  Args:
    function: of one value. What it raises, the next `give` or `wait` raises.
  """

  def __init__(self, function):
    self._function = function
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._lock = threading.Lock()
    self._value, self._running, self._future = _NOTHING, False, None

  def give(self, value):
    """Has the function called with a value, unless a later one comes before it can be."""
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
