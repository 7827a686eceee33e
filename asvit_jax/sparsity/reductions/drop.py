"""Dropping, as published (arXiv:2209.13802): nothing is left of a token that goes."""


class Drop:
  """See `reductions`."""

  changes_tokens = False
  uses_keys = False

  def __call__(self, x, sizes, present, keep, keys):
    """Tokens and sizes as they are."""
    del present, keep, keys
    return x, sizes


drop = Drop()
