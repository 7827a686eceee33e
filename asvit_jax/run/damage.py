"""What damage to a checkpoint is: what its files hold is not what was saved.

Whatever Orbax makes of such files, an array of zeros or any of a dozen errors, two things tell it
from the rest. A disk that fails, a network that is away, a permission that is missing say nothing
of what is stored: they show in the error, or when the files are read. And arrays of another network
have other names, which the checksums hold, or other shapes.
"""

import errno
import os
import re

import jax
import numpy as np

from asvit_jax.core import leaves

# Of TensorStore's errors, and those of other libraries that go by the same codes, those that say
# that something could not be had just now, or not by this user.
_TROUBLE = re.compile(
  r"(UNAVAILABLE|PERMISSION_DENIED|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|UNAUTHENTICATED|ABORTED"
  r"|CANCELLED)\b"
)
_CODE = re.compile(r"[A-Z_]+: ")
_SYSTEM = re.compile(r"\[os_error_code='(\d+)'")
# What an operating system says of a file that is not there, or that is none.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_PIECE = 1 << 20  # bytes


class DamagedError(Exception):
  """Arrays were read that are not those which were saved."""


class OtherNetworkError(Exception):
  """Arrays were saved that are not those which are asked for."""


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


def check_shapes(items, targets):
  """Raises `OtherNetworkError` where arrays have other shapes than those asked for."""
  pairs = zip(jax.tree.leaves(items), jax.tree.leaves(targets), strict=True)
  for found, wanted in pairs:
    if np.shape(found) != np.shape(wanted):
      raise OtherNetworkError(f"an array of shape {np.shape(found)} in place of {np.shape(wanted)}")


def describe(error, place, targets, checksums):
  """What an error of reading a checkpoint says, for JSON.

  Args:
    error: that Orbax raised, or one of this module.
    place: directory of the step.
    targets: {name: tree of arrays} that were asked for.
    checksums: {name: {leaf: checksum}} saved with the step; None where there are none to read.

  Returns:
    Dictionary: `text`; `damage`, whether it is that, and `sure`, whether trying again could say
    nothing else; `may_pass`, whether trying again may help, and `soon`, whether that would be
    within moments.
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
  """What the operating system says in an error, "Too many open files"; or None."""
  for cause in _causes(error):
    if isinstance(cause, OSError) and cause.strerror:
      return cause.strerror
    if (number := _number(cause)) is not None:
      return os.strerror(number)
  return None


def number_of_system(error):
  """The number of what the operating system says in an error, `errno.EMFILE`; or None.

  That a file is not there is no such: it is what a disk looks like that is gone.
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
  """The first error that says so, of one and of those that led to it; or None."""
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
  """The number that the text of an error gives of the operating system, as TensorStore puts it."""
  said = _SYSTEM.search(str(cause))
  return None if said is None else int(said[1])


def _causes(error):
  """An error and those that led to it."""
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__


def _is_forbidden(error):
  return getattr(error, "errno", None) in _FORBIDDEN or str(error).startswith("PERMISSION_DENIED")


def _unreadable(places):
  """The error of reading all that is in some directories, where it cannot be read; or None."""
  try:
    for place in places:
      if place.is_dir():
        _read_all(place)
  except Exception as error:  # of a disk, of an object store: they have no common type
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
  """Whether an error that is no trouble says that other arrays were saved."""
  if isinstance(error, OtherNetworkError):
    return True
  # By these, without a code, Orbax says that a tree has another structure; and of files, too, that
  # they are not what it expects.
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
