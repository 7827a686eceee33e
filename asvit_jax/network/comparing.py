"""What makes networks equal, and usable as keys: `jax.jit(network)` is one of them."""

import dataclasses

from asvit_jax.core import leaves


class Compared:
  """A dataclass with `params`, equal to another where all fields are, arrays by their values.

  The hash leaves the parameters out, so that it costs nothing and equal ones share it.
  """

  def __eq__(self, other):
    """Whether another is the same; False where values cannot be compared, as of traced arrays."""
    if not isinstance(other, type(self)):
      return NotImplemented
    if self is other:
      return True
    try:
      same = bool(self._facts == other._facts)
    except (TypeError, ValueError):  # of arrays in a field
      return False
    return same and leaves.equal(self.params, other.params)

  def __hash__(self):
    return hash(self._facts)

  @property
  def _facts(self):
    """All but the parameters."""
    names = (field.name for field in dataclasses.fields(self) if field.name != "params")
    return tuple(getattr(self, name) for name in names)
