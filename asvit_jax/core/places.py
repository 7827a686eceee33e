"""Checks whether a file or directory could be written at a path of a disk."""

import os
import stat
import tempfile

PREFIX = ".asvit_jax-"  # of the temporary directories of `disks`
_NAME, _ITSELF = "give the name of a file", "give that path itself"
_KINDS = {
  stat.S_IFDIR: "a directory",
  stat.S_IFCHR: "a device",
  stat.S_IFBLK: "a device",
  stat.S_IFIFO: "a pipe",
  stat.S_IFSOCK: "a socket",
}


class Refused(OSError):
  """A path must not be overwritten, or is not the name of a file."""


def check_file(path):
  """Raises `Refused` unless a file could be written to a `pathlib.Path`.

  It can if the path is free or a writable regular file, and its directory is writable or can be
  made. The check leaves nothing behind.
  """
  check_replaceable(path)
  check_parent(path)


def check_replaceable(path, advice=None):
  """Raises `Refused` unless a path is free or a writable regular file.

  Args:
    path: a `pathlib.Path`.
    advice: what to do about anything else there; by default, to give another path.
  """
  status = status_of(path)
  if status is None:
    return
  check_regular(path, status, advice)
  if not os.access(path, os.W_OK):
    raise Refused("the file is not writable: change its permissions")


def check_regular(path, status, advice=None):
  """Raises `Refused` unless `status`, of `os.lstat`, is that of a regular file."""
  if stat.S_ISLNK(status.st_mode):
    raise Refused(_link(path, advice))
  if not stat.S_ISREG(status.st_mode):
    raise Refused(f"it is {_kind(status)}: {advice or _NAME}")


def check_directory(path):
  """Raises `Refused` unless files could be written in a directory or a link to one."""
  status = status_of(path)
  if status is None:
    check_parent(path)
  elif _is_directory(path):
    _probe(path)
  elif stat.S_ISLNK(status.st_mode):
    raise Refused(_link(path))
  else:
    raise Refused(f"{path} is not a writable directory, it is {_kind(status)}")


def check_no_link(path, advice=None):
  """Raises `Refused` unless a path is free or a directory that is not a link.

  Args:
    path: a `pathlib.Path`.
    advice: what to do about anything else there.
  """
  status = status_of(path)
  if status is None or stat.S_ISDIR(status.st_mode):
    return
  if stat.S_ISLNK(status.st_mode):
    raise Refused(_link(path, advice))
  raise Refused(f"it is {_kind(status)}, expected a directory{f': {advice}' if advice else ''}")


def check_parent(path):
  """Raises `Refused` if the directory of a path is not writable and cannot be made."""
  place = path.parent
  while status_of(place) is None:
    place = place.parent
  if not _is_directory(place):
    leads = f", a link to {os.path.realpath(place)}," if place.is_symlink() else ""
    raise Refused(f"{place}{leads} is not a writable directory")
  _probe(place)
  longest = os.pathconf(place, "PC_NAME_MAX")
  for part in path.relative_to(place).parts:
    if len(os.fsencode(part)) > longest:
      raise Refused(f"a name of {len(os.fsencode(part))} bytes, expected at most {longest}")
  status_of(path.parent / f"{PREFIX}xxxxxxxx" / path.name)  # the longest path that writing needs


def status_of(path):
  """The `os.lstat` of a path; None if nothing exists there."""
  try:
    return os.lstat(path)
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise Refused(f"its status cannot be read ({error.strerror})") from error


def _kind(status):
  return _KINDS.get(stat.S_IFMT(status.st_mode), "a file")


def _link(path, advice=None):
  """What is wrong with a link, and what to do about it."""
  try:
    status = os.stat(path)
  except FileNotFoundError:
    return f"it is a link to {os.path.realpath(path)}, which is not there: {advice or _ITSELF}"
  except OSError as error:
    return f"it is a link that leads nowhere ({error.strerror}): {advice or _NAME}"
  if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
    return f"it is a link to {os.path.realpath(path)}: {advice or _ITSELF}"
  return f"it is a link to {_kind(status)}: {advice or _NAME}"


def _is_directory(path):
  try:
    return stat.S_ISDIR(os.stat(path).st_mode)
  except OSError:
    return False


def _probe(directory):
  """Raises `Refused` if nothing can be created in a directory; permissions alone do not tell."""
  try:
    os.rmdir(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
  except OSError as error:
    raise Refused(f"{directory} is not a writable directory ({error.strerror})") from error
