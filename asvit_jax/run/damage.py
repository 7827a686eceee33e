"""What damage to a checkpoint is: a checksum that differs, or an array that is not all there.

Nothing else: a disk that fails, a network that is away, a permission that is missing say nothing of
what is stored.
"""

import json
import re

from asvit_jax.core import leaves

# What TensorStore's errors begin with: a checksum in its files, a part missing, a file missing.
_DAMAGED = re.compile(r"(DATA_LOSS|OUT_OF_RANGE|NOT_FOUND): ")
_ANY = re.compile(r"[A-Z_]+: ")


class DamagedError(Exception):
  """Arrays were read that are not those which were saved."""


def check(items, checksums):
  """Raises `DamagedError` where arrays differ from the checksums saved with them.

  Args:
    items: {name: tree of arrays}.
    checksums: {name: what `leaves.checksums` said of them}.
  """
  differ = [
    f"{name}.{leaf}"
    for name, item in items.items()
    for leaf, value in leaves.checksums(item).items()
    if checksums.get(name, {}).get(leaf) != value
  ]
  if differ:
    raise DamagedError(f"checksums differ: {', '.join(differ[:3])}")


def describe(error):
  """What an error of reading a checkpoint says, for JSON.

  Args:
    error: that Orbax raised, or `DamagedError`.

  Returns:
    Dictionary: `text`; `damage`, whether it is that; `may_pass`, whether trying again may help.
  """
  text = str(error)
  missing = isinstance(error, FileNotFoundError | json.JSONDecodeError | DamagedError) or (
    isinstance(error, KeyError) and "was not found in the checkpoint" in text
  )
  code = _ANY.match(text)
  return {
    "text": text[:300]
    if isinstance(error, DamagedError)
    else f"{type(error).__name__}, {text[:200]}",
    "damage": bool(missing or _DAMAGED.match(text)),
    # Orbax says by these that the arrays are of another structure or of other shapes.
    "may_pass": bool(code) or not isinstance(error, ValueError | KeyError | TypeError),
  }
