"""What Orbax's threads say of errors that it also raises, where they are told in a line.

A disk that is full makes hundreds of lines of tracebacks: of every array and of every thread that
waited for one: in Orbax's log, in asyncio's, by Python's hooks for errors, and in its warnings.
"""

import logging
import sys
import threading
import warnings

_LIBRARIES = ("/orbax/", "/tensorstore/")
# What is left of their work says so when its event loop, or Python, ends.
_ENDED = (
  "Event loop is closed",
  "cannot schedule new futures",
  "'_UnixSelectorEventLoop' object has no attribute",  # which had no descriptor to begin with
)


def silence():
  """Drops it, for the rest of this process; what others say is left."""
  for name in ("absl", "asyncio"):
    logger = logging.getLogger(name)
    if _Theirs not in map(type, logger.filters):
      logger.addFilter(_Theirs())
  for module, name in (
    (sys, "excepthook"),
    (sys, "unraisablehook"),
    (threading, "excepthook"),
  ):
    hook = getattr(module, name)
    if not hasattr(hook, "silenced"):
      setattr(module, name, _quieter(hook))


def silence_leftovers():
  """Drops also what Python says of their work that never began, once a save has failed."""
  silence()  # libraries, and tests, set hooks of their own
  warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


class _Theirs(logging.Filter):
  """Drops records of errors that are theirs."""

  def filter(self, record):
    if record.levelno < logging.ERROR:
      return True
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "asyncio":
      return not (_is_theirs(error) or any(part in record.getMessage() for part in _LIBRARIES))
    return not (_LIBRARIES[0] in record.pathname and (error is not None or "etadata" in record.msg))


def _quieter(hook):
  """A hook whose arguments are (kind, error, traceback), or one tuple of these and more."""

  def quieter(*args):
    error = args[1] if len(args) > 1 else args[0][1]
    ends_python = len(args) > 1 and threading.current_thread() is threading.main_thread()
    if ends_python or not _is_theirs(error):
      hook(*args)

  quieter.silenced = True
  return quieter


def _is_theirs(error):
  """Whether an error went through their code, or is what ends its leftovers."""
  if error is None:
    return False
  if str(error).startswith(_ENDED):
    return True
  traceback = error.__traceback__
  while traceback is not None:
    if any(part in traceback.tb_frame.f_code.co_filename for part in _LIBRARIES):
      return True
    traceback = traceback.tb_next
  # TensorStore's own come from no file; they begin with a code: "RESOURCE_EXHAUSTED: Error …".
  return type(error) is ValueError and str(error).partition(":")[0].replace("_", "").isupper()
