"""Keeps a command's terminal from what names of others would do to it.

What the package says goes through `printable` by itself; this is for what libraries say: warnings,
log lines, and the last lines of a traceback, all of which quote names of files.
"""

import logging
import sys
import traceback
import warnings

from asvit_jax.core.printable import printable


def guard():
  """Makes warnings, log records and tracebacks of this process printable."""
  if sys.excepthook is _show_exception:
    return
  warnings.showwarning = _show_warning
  sys.excepthook = _show_exception
  make = logging.getLogRecordFactory()

  def record(*args, **kwargs):
    made = make(*args, **kwargs)
    # With `args` left in, what a name holds would be taken for the form of the message.
    made.msg, made.args = printable(_message(made)), ()
    return made

  logging.setLogRecordFactory(record)


def _message(record):
  try:
    return record.getMessage()
  except Exception:  # of arguments that do not fit, on which logging does not end a program either
    return record.msg


def _show_warning(message, category, filename, lineno, file=None, line=None):
  text = warnings.formatwarning(message, category, filename, lineno, line)
  _write(text, file or sys.stderr)


def _show_exception(kind, error, trace):
  _write("".join(traceback.format_exception(kind, error, trace)), sys.stderr)


def _write(text, file):
  try:
    file.write(printable(text))
    file.flush()
  except (OSError, ValueError, AttributeError):  # nobody listens
    pass
