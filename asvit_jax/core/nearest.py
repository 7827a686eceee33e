"""Suggests the known name closest to an unknown one."""

import difflib

_LEAST = 0.7  # smallest ratio of difflib, in [0, 1], that counts as close


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
