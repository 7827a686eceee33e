"""Silences the tracebacks of Orbax's threads for errors that Orbax also raises.

A full disk otherwise prints hundreds of lines, for every array and every thread that waits for one:
in the logs of Orbax and asyncio, by Python's exception hooks, and as warnings. The error that Orbax
raises is reported in one line.
"""

import logging
import sys
import threading
import warnings

_LIBRARIES = ("/orbax/", "/tensorstore/")
# Errors of unfinished work at the end of its event loop, or of Python.
_ENDED = (
  "Event loop is closed",
  "cannot schedule new futures",
  "'_UnixSelectorEventLoop' object has no attribute",  # an event loop that got no descriptor
)


def silence():
  """Silences these tracebacks for the rest of this process; those of other code stay."""
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
  """After a failed save, also silences Python's warnings about its coroutines that never ran."""
  silence()  # again, as libraries and tests may have set hooks of their own
  warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


class _Theirs(logging.Filter):
  """A logging filter that drops records about errors of Orbax and TensorStore."""

  def filter(self, record):
    if record.levelno < logging.ERROR:
      return True
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "asyncio":
      return not (_is_theirs(error) or any(part in record.getMessage() for part in _LIBRARIES))
    return not (_LIBRARIES[0] in record.pathname and (error is not None or "etadata" in record.msg))


def _quieter(hook):
  """Wraps an exception hook so that it ignores errors of Orbax and TensorStore.

  Its arguments are (type, error, traceback), or one tuple that begins with these.
  """

  def quieter(*args):
    error = args[1] if len(args) > 1 else args[0][1]
    ends_python = len(args) > 1 and threading.current_thread() is threading.main_thread()
    if ends_python or not _is_theirs(error):
      hook(*args)

  quieter.silenced = True
  return quieter


def _is_theirs(error):
  """Whether an error passed through Orbax or TensorStore, or ends their unfinished work."""
  if error is None:
    return False
  if str(error).startswith(_ENDED):
    return True
  traceback = error.__traceback__
  while traceback is not None:
    if any(part in traceback.tb_frame.f_code.co_filename for part in _LIBRARIES):
      return True
    traceback = traceback.tb_next
  # TensorStore's own errors have no file, but begin with a code: "RESOURCE_EXHAUSTED: Error …".
  return type(error) is ValueError and str(error).partition(":")[0].replace("_", "").isupper()
