"""Equality and hash of networks, so that they can be dictionary keys and arguments of `jit`."""

import dataclasses

from asvit_jax.core import leaves


class Compared:
  """A dataclass with `params` whose instances are equal if all fields are, arrays by value.

  The hash ignores the parameters: it is cheap, and equal instances share it.
  """

  def __eq__(self, other):
    """Whether all fields are equal; False for values that cannot be compared, as traced arrays."""
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
    """The values of all fields except the parameters."""
    names = (field.name for field in dataclasses.fields(self) if field.name != "params")
    return tuple(getattr(self, name) for name in names)
