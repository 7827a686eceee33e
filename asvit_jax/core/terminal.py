"""Keeps names from strangers' files from controlling the terminal.

The package's own output passes through `printable`. This module covers the output of libraries:
warnings, log records and tracebacks, all of which may quote file names.
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
    # `args` must go: a name with a "%" would be taken for part of the format.
    made.msg, made.args = printable(_message(made)), ()
    return made

  logging.setLogRecordFactory(record)


def _message(record):
  try:
    return record.getMessage()
  except Exception:  # wrong arguments; logging does not end a program for these either
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
  except (OSError, ValueError, AttributeError):  # nobody can read it
    pass
