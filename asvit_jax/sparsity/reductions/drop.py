"""Dropping, as published (arXiv:2209.13802): nothing is left of a token that goes."""


class Drop:
  """See `reductions`."""

  changes_tokens = False

  def __call__(self, x, present, keep):
    """The tokens as they are."""
    del present, keep
    return x


drop = Drop()
