"""The known name that an unknown one was meant to be."""

import difflib

_LEAST = 0.7  # of difflib's ratio, in [0, 1]


def hint(name, known):
  """What to add to the error about an unknown name.

  Args:
    name: what was given.
    known: the names there are; of dotted ones, the last part alone may have been meant.

  Returns:
    "; did you mean 'drop_path'?", or "" where nothing is near.
  """
  found = nearest(name, known)
  return "" if found is None else f"; did you mean {found!r}?"


def nearest(name, known):
  """The known name that is most like `name`, or None; arguments as for `hint`."""
  name = str(name)

  def likeness(other):
    whole = _ratio(name, other)
    last = _ratio(name.rpartition(".")[2], other.rpartition(".")[2])
    return max(last, whole), whole  # the last parts first: their sections may be far apart

  best = max(known, key=likeness, default=None)
  return best if best is not None and likeness(best)[0] >= _LEAST else None


def _ratio(a, b):
  return difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()
