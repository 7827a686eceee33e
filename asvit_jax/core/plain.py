"""Values as JSON has them."""

import math
import os


def plain(value):
  """A value of dictionaries, lists, text and numbers that any reader of JSON understands.

  NumPy's and JAX's numbers and arrays become numbers and lists, what is not finite None (JSON has
  no NaN), paths text, keys text, and a lone surrogate, which Python makes of a file's name that is
  no UTF-8, an escape.

  Args:
    value: to make plain.

  Raises:
    TypeError: it holds something else.
  """
  if value is None or isinstance(value, (bool, int)):
    return value
  if isinstance(value, float):
    return float(value) if math.isfinite(value) else None
  if isinstance(value, str):
    return value.encode("utf-8", "backslashreplace").decode()
  if isinstance(value, dict):
    return {plain(k if isinstance(k, str) else str(k)): plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple, set, frozenset)):
    return [plain(item) for item in value]
  if isinstance(value, os.PathLike):
    return plain(os.fsdecode(value))
  if hasattr(value, "__array__"):  # so also NumPy's own; most results have none
    import numpy as np

    return plain(np.asarray(value).tolist())
  raise TypeError(f"{type(value).__name__} cannot be written as JSON")
