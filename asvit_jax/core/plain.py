"""Conversion of values to plain JSON."""

import math
import os


def plain(value):
  """Converts a value to dictionaries, lists, text and numbers that any JSON reader accepts.

  Numbers and arrays of NumPy and JAX become numbers and lists; NaN and infinities become None (JSON
  has neither); paths and keys become text; lone surrogates, which stand for bytes of file names
  that are not UTF-8, are escaped.

  Raises:
    TypeError: the value contains any other type.
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
  if hasattr(value, "__array__"):  # NumPy is imported late, as most results have no arrays
    import numpy as np

    return plain(np.asarray(value).tolist())
  raise TypeError(f"{type(value).__name__} cannot be written as JSON")
