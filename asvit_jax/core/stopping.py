"""Stop signals: Ctrl-C, a scheduler's SIGTERM, a closing terminal.

Python runs signal handlers between two instructions of the main thread, so not while it compiles or
waits for a device or a hanging disk. Reactions needed at such times run here, on a separate thread.
"""

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
import time

from asvit_jax.core.progress import log

# The stop signals; the first is the one that JAX itself handles with several hosts.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Launchers signal both a process and its group: signals within this many seconds count as one.
_TOGETHER = 0.3
_SECONDS_TO_RAISE_AGAIN = 0.05  # when the callback that lost a KeyboardInterrupt has ended
_SECONDS_TO_END = 10.0  # for hanging work to end after a stop signal


class Watch:
  """Calls a function with the number of each signal as it arrives, on a separate thread.

  Only signals that have a Python handler are seen. Outside the main thread it does nothing, because
  Python delivers signals only to the main one.

  Args:
    function: called with the signal's number and its time, of `time.monotonic`.
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
  """Calls one function at the first of some signals, and another one at each later signal.

  Args:
    numbers: numbers of the signals; others are ignored.
    first: function of the number of the first signal.
    again: function of the number of a later signal, unless it arrives together with the first.
  """

  def __init__(self, numbers, first, again):
    self._numbers, self._first, self._again = frozenset(numbers), first, again
    self._since = None

  def __call__(self, number, now):
    """Counts a signal that arrived at `now`, of `time.monotonic`."""
    if number not in self._numbers:
      return
    if self._since is None:
      self._since = now
      self._first(number)
    elif now - self._since >= _TOGETHER:
      self._again(number)


def status(number):
  """The exit status, by the convention of shells, of a process that a signal ended."""
  return 128 + number


def end_at_once(number):
  """Ends the process immediately, whatever its threads are doing."""
  log(f"ended at once ({signal.Signals(number).name})")
  os._exit(status(number))


def leave(number):
  """Ends the process in order, with a signal's exit status; does not wait long for hanging work."""
  for theirs in (signal.SIGINT, signal.SIGTERM):
    with contextlib.suppress(ValueError):  # not in the main thread
      signal.signal(theirs, signal.SIG_DFL)  # a second signal ends the process at once
  with contextlib.suppress(OSError, ValueError, AttributeError):
    sys.stdout.flush()
  _end_within(_SECONDS_TO_END / 2, number)
  sys.exit(status(number))


@contextlib.contextmanager
def interruptible():
  """A context in which Ctrl-C ends the process with one line and status 130, without a traceback.

  Unfinished outputs are cleaned up first, as after any error. Hanging work is abandoned after 10 s,
  or at the second Ctrl-C. A Ctrl-C that arrives while Python collects garbage is delivered again.
  """
  watched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
  count = Count(
    [signal.SIGINT] if watched else [],
    lambda number: _end_within(_SECONDS_TO_END, number),
    end_at_once,
  )
  try:
    with _DeliveredAgain() as again, Watch(again.unless_again(count)):
      yield
  except KeyboardInterrupt:
    log("interrupted")
    leave(signal.SIGINT)


class _DeliveredAgain:
  """A context in which a KeyboardInterrupt that Python had to ignore is raised again.

  Python ignores exceptions of finalizers and of callbacks of its garbage collector. JAX has such a
  callback: the work would go on as if nobody had pressed Ctrl-C.
  """

  def __init__(self):
    self._sent = []  # an item a signal of our own that `unless_again` has not met yet

  def __enter__(self):
    self._before, self._ours = sys.unraisablehook, self._hook
    sys.unraisablehook = self._ours
    return self

  def __exit__(self, *_):
    if sys.unraisablehook is self._ours:
      sys.unraisablehook = self._before

  def unless_again(self, function):
    """A function for `Watch` that leaves out the signals that are only sent again."""

    def called(number, now):
      if number == signal.SIGINT and self._sent:
        self._sent.pop()
      else:
        function(number, now)

    return called

  def _hook(self, unraisable):
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
      self._before(unraisable)
    elif threading.current_thread() is threading.main_thread():
      threading.Timer(_SECONDS_TO_RAISE_AGAIN, self._send).start()

  def _send(self):
    self._sent.append(True)
    _thread.interrupt_main()


def _end_within(seconds, number):
  timer = threading.Timer(seconds, os._exit, [status(number)])
  timer.daemon = True
  timer.start()


def end_at_exit(status):
  """Lets the process end with a status when it exits, whatever its other threads are doing.

  Libraries would otherwise tear down at exit what a thread in native code still uses.
  """

  def end():
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()
    os._exit(status)

  atexit.register(end)
