"""Being told to stop: by Ctrl-C, by a scheduler's SIGTERM, by a terminal that closes.

Python runs a handler between two instructions of the main thread, so not while that compiles, or
waits for a device or a disk that hangs. What must happen then is done here on a thread of its own.
"""

import contextlib
import os
import signal
import sys
import threading
import time

from asvit_jax.core.progress import log

# By which a process is told to stop; the first is the one that JAX itself has of several hosts.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Launchers send a signal to a process and to its group: that is one, if they come together.
_TOGETHER = 0.3
_SECONDS_TO_END = 10.0  # for what hangs once the process was told to end


class Watch:
  """Calls a function with the number of each signal as it comes, on a thread of its own.

  Only signals with a handler of Python's come here. In a thread other than the main one it does
  nothing, as Python has signals.

  Args:
    function: of the number and the time that it came, of `time.monotonic`.
  """

  def __init__(self, function):
    self._function, self._writer = function, None

  def __enter__(self):
    if threading.current_thread() is not threading.main_thread():
      return self
    reader, self._writer = os.pipe()
    os.set_blocking(self._writer, False)
    self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
    threading.Thread(target=self._work, args=(reader,), name="signals", daemon=True).start()
    return self

  def __exit__(self, *_):
    if self._writer is not None:
      signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
      os.close(self._writer)  # which ends the thread

  def _work(self, reader):
    with open(reader, "rb", buffering=0) as numbers:
      while came := numbers.read(1):
        self._function(came[0], time.monotonic())


class Count:
  """What is done at the first of some signals, and at the next one.

  Args:
    numbers: of the signals; others are left out.
    first: function of the number of the first.
    again: of that of one which comes later, not together with it.
  """

  def __init__(self, numbers, first, again):
    self._numbers, self._first, self._again = frozenset(numbers), first, again
    self._since = None

  def __call__(self, number, now):
    """Counts one signal; `now` is when it came, of `time.monotonic`."""
    if number not in self._numbers:
      return
    if self._since is None:
      self._since = now
      self._first(number)
    elif now - self._since >= _TOGETHER:
      self._again(number)


def status(number):
  """The exit status of a process that a signal ended, as shells have it."""
  return 128 + number


def end_at_once(number):
  """Ends the process here and now, whatever its threads do."""
  log(f"ended at once ({signal.Signals(number).name})")
  os._exit(status(number))


def leave(number):
  """Ends the process in order, as a signal would have it; what hangs is left after a while."""
  for theirs in (signal.SIGINT, signal.SIGTERM):
    with contextlib.suppress(ValueError):  # of another thread than the main one
      signal.signal(theirs, signal.SIG_DFL)  # once more ends it at once
  with contextlib.suppress(OSError, ValueError, AttributeError):
    sys.stdout.flush()
  _end_within(_SECONDS_TO_END / 2, number)
  sys.exit(status(number))


@contextlib.contextmanager
def interruptible():
  """Where Ctrl-C ends the process with a line and status 130, without a traceback.

  What is being written is cleaned up first, as for any error; what hangs is left after a while, or
  at the second Ctrl-C.
  """
  watched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
  count = Count(
    [signal.SIGINT] if watched else [],
    lambda number: _end_within(_SECONDS_TO_END, number),
    end_at_once,
  )
  try:
    with Watch(count):
      yield
  except KeyboardInterrupt:
    log("interrupted")
    leave(signal.SIGINT)


def _end_within(seconds, number):
  timer = threading.Timer(seconds, os._exit, [status(number)])
  timer.daemon = True
  timer.start()
