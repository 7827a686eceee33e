"""What is at a path of a disk, and whether a file or a directory could be written there."""

import os
import stat
import tempfile

PREFIX = ".asvit_jax-"  # of the directories that `disks` writes in
_NAME, _ITSELF = "give the name of a file", "give that itself"
_KINDS = {
  stat.S_IFDIR: "a directory",
  stat.S_IFCHR: "a device",
  stat.S_IFBLK: "a device",
  stat.S_IFIFO: "a pipe",
  stat.S_IFSOCK: "a socket",
}


class Refused(OSError):
  """What is at a path is not to be written over, or a path names nothing that could be written."""


def check_file(path):
  """Raises `Refused` unless a file could be written to a path, a `pathlib.Path`.

  That is a regular file that may be written, or nothing, in a directory that is writable or can be
  made. Nothing is left of the check.
  """
  check_replaceable(path)
  check_parent(path)


def check_replaceable(path, advice=None):
  """Raises `Refused` unless a regular file that may be written is at a path, or nothing.

  Args:
    path: a `pathlib.Path`.
    advice: what to do about what else is there; by default, to give another path.
  """
  status = status_of(path)
  if status is None:
    return
  check_regular(path, status, advice)
  if not os.access(path, os.W_OK):
    raise Refused("it is a file that you may not write: change its permissions")


def check_regular(path, status, advice=None):
  """Raises `Refused` unless the status, of `os.lstat`, of what is at a path is that of a file."""
  if stat.S_ISLNK(status.st_mode):
    raise Refused(_link(path, advice))
  if not stat.S_ISREG(status.st_mode):
    raise Refused(f"it is {_kind(status)}: {advice or _NAME}")


def check_directory(path):
  """Raises `Refused` unless files could be written in a directory, which may be a link to one."""
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
  """Raises `Refused` unless a path is a directory itself, or nothing is there.

  Args:
    path: a `pathlib.Path`.
    advice: what to do about what else is there.
  """
  status = status_of(path)
  if status is None or stat.S_ISDIR(status.st_mode):
    return
  if stat.S_ISLNK(status.st_mode):
    raise Refused(_link(path, advice))
  raise Refused(f"it is {_kind(status)}, expected a directory{f': {advice}' if advice else ''}")


def check_parent(path):
  """Raises `Refused` where the directory of a path is not writable and cannot be made."""
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
  status_of(path.parent / f"{PREFIX}xxxxxxxx" / path.name)  # the longest path that is needed


def status_of(path):
  """What is at a path itself, see `os.lstat`; None where nothing is, or where that cannot be."""
  try:
    return os.lstat(path)
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise Refused(f"it cannot be looked at ({error.strerror})") from error


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
  """Raises `Refused` where nothing can be made in a directory: permissions do not tell it all."""
  try:
    os.rmdir(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
  except OSError as error:
    raise Refused(f"{directory} is not a writable directory ({error.strerror})") from error
