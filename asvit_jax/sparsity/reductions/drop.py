"""Dropping, as published (arXiv:2209.13802): removed tokens leave nothing behind."""


class Drop:
  """Leaves the kept tokens unchanged; a reduction, see `reductions`."""

  changes_tokens = False
  uses_keys = False

  def __call__(self, x, sizes, present, keep, keys):
    """Returns tokens and sizes unchanged."""
    del present, keep, keys
    return x, sizes


drop = Drop()
