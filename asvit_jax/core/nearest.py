"""Suggests what was probably meant: the known name closest to an unknown one, or a share."""

import difflib
import re

_LEAST = 0.7  # smallest ratio of difflib, in [0, 1], that counts as close
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d*)?) *(%?)")
_LEAST_PERCENT = 5  # a smaller number without % may be a share that was typed wrongly


def hint(name, known):
  """A suggestion to append to the error about an unknown name.

  Args:
    name: the unknown name.
    known: the valid names; a dotted one also matches by its last part alone.

  Returns:
    "; did you mean 'drop_path'?", or "" if no name is close.
  """
  found = nearest(name, known)
  return "" if found is None else f"; did you mean {found!r}?"


def percent_hint(text):
  """A suggestion to append to the error about a share that is given in percent: 65 or 65%.

  Returns:
    "; did you mean 0.65?", or "".
  """
  match = _PERCENT.fullmatch(text)
  percent = float(match[1]) if match else 0
  if not 0 < percent <= 100 or not (match[2] or percent >= _LEAST_PERCENT):
    return ""
  return f"; did you mean {percent / 100:g}?"


def nearest(name, known):
  """The known name closest to `name`, or None; arguments as for `hint`."""
  name = str(name)

  def likeness(other):
    whole = _ratio(name, other)
    last = _ratio(name.rpartition(".")[2], other.rpartition(".")[2])
    return max(last, whole), whole  # the last part counts first: the sections may differ entirely

  best = max(known, key=likeness, default=None)
  return best if best is not None and likeness(best)[0] >= _LEAST else None


def _ratio(a, b):
  return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()
