"""Tells damaged checkpoints from other errors of reading them.

A checkpoint is damaged if its files do not hold what was saved. Orbax then returns arrays of zeros
or raises one of a dozen errors, so damage is found by exclusion. A failing disk, an unreachable
network or a missing permission shows in the error, or when the files are read once more, and says
nothing about the content. A checkpoint of another network has other names, which the checksums
list, or other shapes.
"""

import errno
import os
import re

import jax
import numpy as np

from asvit_jax.core import leaves

# Error codes of TensorStore, and of other libraries with the same codes, for data that is
# temporarily unavailable, or forbidden to this user.
_TROUBLE = re.compile(
  r"(UNAVAILABLE|PERMISSION_DENIED|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|UNAUTHENTICATED|ABORTED"
  r"|CANCELLED)\b"
)
_CODE = re.compile(r"[A-Z_]+: ")
_SYSTEM = re.compile(r"\[os_error_code='(\d+)'")
# Error numbers for a path that is missing, or is not a file.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_PIECE = 1 << 20  # bytes


class DamagedError(Exception):
  """The arrays that were read differ from those that were saved."""


class OtherNetworkError(Exception):
  """The arrays that were saved are those of another network."""


def check(items, checksums):
  """Raises `DamagedError` if arrays do not match the checksums saved with them.

  Args:
    items: {name: tree of arrays}.
    checksums: {name: result of `leaves.checksums` at saving}.
  """
  differ = [
    f"{name}.{leaf}"
    for name, item in items.items()
    for leaf, value in leaves.checksums(item).items()
    if checksums.get(name, {}).get(leaf) != value
  ]
  if differ:
    raise DamagedError(f"checksums differ: {', '.join(differ[:3])}")


def check_shapes(items, targets):
  """Raises `OtherNetworkError` if arrays have other shapes than requested."""
  pairs = zip(jax.tree.leaves(items), jax.tree.leaves(targets), strict=True)
  for found, wanted in pairs:
    if np.shape(found) != np.shape(wanted):
      raise OtherNetworkError(f"an array of shape {np.shape(found)} in place of {np.shape(wanted)}")


def describe(error, place, targets, checksums):
  """Classifies an error of reading a checkpoint.

  Args:
    error: an exception of Orbax, or of this module.
    place: directory of the step.
    targets: {name: tree of arrays} that were requested.
    checksums: {name: {leaf: checksum}} saved with the step; None if they cannot be read.

  Returns:
    Dictionary for JSON: `text`; `damage`, whether the checkpoint is damaged; `sure`, whether
    another attempt cannot change that; `may_pass`, whether another attempt may succeed; `soon`,
    whether it would succeed within moments or not at all.
  """
  trouble = _trouble(error) or _unreadable([place / name for name in (*targets, "checksums")])
  other = not trouble and _of_another_network(error, targets, checksums)
  return {
    "text": _text(trouble or error),
    "damage": not trouble and not other,
    "sure": isinstance(error, DamagedError),
    "may_pass": not other,
    "soon": not trouble or _is_forbidden(trouble),
  }


def of_system(error):
  """The operating system's text in an error, such as "Too many open files"; or None."""
  for cause in _causes(error):
    if isinstance(cause, OSError) and cause.strerror:
      return cause.strerror
    if (number := _number(cause)) is not None:
      return os.strerror(number)
  return None


def number_of_system(error):
  """The operating system's error number in an error, such as `errno.EMFILE`; or None.

  The numbers of missing files do not count: a lost disk looks like missing files.
  """
  for cause in _causes(error):
    said = _number(cause)
    number = getattr(cause, "errno", None) if said is None else said
    if isinstance(number, int) and number not in _ABSENT:
      return number
  return None


def _text(error):
  text = f"{str(error)[:200]}"
  return text if isinstance(error, DamagedError) else f"{type(error).__name__}, {text}"


def _trouble(error):
  """The first error about the storage, of an error and its causes; None if there is none."""
  for cause in _causes(error):
    if isinstance(cause, OSError):
      if not isinstance(cause, FileNotFoundError) and cause.errno not in _ABSENT:
        return cause
    elif (
      isinstance(cause, MemoryError)
      or _TROUBLE.match(str(cause))
      or _number(cause) not in (None, *_ABSENT)
    ):
      return cause
  return None


def _number(cause):
  """The operating system's error number in a text of TensorStore; or None."""
  said = _SYSTEM.search(str(cause))
  return None if said is None else int(said[1])


def _causes(error):
  """An error and its causes, outermost first."""
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__


def _is_forbidden(error):
  return getattr(error, "errno", None) in _FORBIDDEN or str(error).startswith("PERMISSION_DENIED")


def _unreadable(places):
  """The error of reading all files in some directories; None if they can be read."""
  try:
    for place in places:
      if place.is_dir():
        _read_all(place)
  except Exception as error:  # disks and object stores raise unrelated types
    return error
  return None


def _read_all(directory):
  for path in directory.iterdir():
    if path.is_dir():
      _read_all(path)
    elif path.is_file():
      with path.open("rb") as file:
        while file.read(_PIECE):
          pass


def _of_another_network(error, targets, checksums):
  """Whether an error, not of the storage, shows that another network was saved."""
  if isinstance(error, OtherNetworkError):
    return True
  # Orbax raises these types, without a code, for a tree of another structure, but also for
  # malformed files.
  if not isinstance(error, ValueError | KeyError | TypeError) or _CODE.match(str(error)):
    return False
  if isinstance(error, UnicodeDecodeError) or type(error).__module__ == "json.decoder":
    return False
  if checksums is None:
    return True
  return any(
    {name for name, _ in leaves.named(target)} != set(checksums.get(item, ()))
    for item, target in targets.items()
  )
