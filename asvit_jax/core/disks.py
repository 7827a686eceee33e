"""Atomic writing on disks: a file appears as a whole or not at all, and nothing else changes.

Everything is first written into a new temporary directory beside its destination. The system makes
that directory for this process alone. So two processes that write to the same path do not
interfere, readers see either the old or the new file, and the leftovers of a killed process disturb
nobody.

Only `storage` uses this module. No other module renames or removes files.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
import tempfile

from asvit_jax.core import places
from asvit_jax.core.places import Refused

_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}


@contextlib.contextmanager
def replacing(path):
  """Yields a temporary path to write a file to, and moves it to `path` unless the block raises.

  The new file takes over the permissions of an existing one.

  Raises:
    Refused: `path` holds something that must not be replaced, see `places.check_replaceable`.
    OSError: it cannot be written.
  """
  places.check_replaceable(path)
  with _beside(path) as partial:
    yield partial
    if not stat.S_ISREG(os.lstat(partial).st_mode):
      raise Refused("something other than a file was written")
    _check_alone(partial)
    _keep_mode(path, partial)
    _sync(partial)
    places.check_replaceable(path)  # again: writing may have taken hours
    os.replace(partial, path)
    _sync(path.parent)


@contextlib.contextmanager
def replacing_directory(path, earlier):
  """Does for a directory what `replacing` does for a file.

  Args:
    path: the destination: absent, an empty directory, or one that `earlier` accepts.
    earlier: function of the path that returns the names of the files in it, as `files_in` does, if
      they may be removed, and raises an error otherwise.
  """
  check_known(path, earlier)
  with _beside(path) as partial:
    yield partial
    if not stat.S_ISDIR(os.lstat(partial).st_mode):
      raise Refused("something other than a directory was written")
    _check_alone(partial)
    for root, _, files in os.walk(partial):
      for name in (*files, ""):
        _sync(os.path.join(root, name))
    known = check_known(path, earlier)
    _keep_mode(path, partial)
    if known:
      _swap(partial, path, known)
    else:
      os.replace(partial, path)  # fails if the directory is no longer empty
    _sync(path.parent)


def check_known(path, earlier):
  """Names of the files of a directory that may be removed, as `earlier` returns them; [] if none.

  Raises:
    Refused: `path` is not a directory.
  """
  places.check_no_link(path)
  there = places.status_of(path) is not None and os.listdir(path)
  return earlier(path) if there else []


def files_in(directory):
  """Names of all non-directories below a directory, links included, relative to it and sorted."""
  found = []
  for root, directories, files in os.walk(directory):
    links = [name for name in directories if os.path.islink(os.path.join(root, name))]
    found += [os.path.relpath(os.path.join(root, name), directory) for name in (*files, *links)]
  return sorted(found)


def opened(path, flags):
  """Opens a regular file without following links or blocking; returns its file descriptor.

  Raises:
    Refused: the path holds something else.
    OSError: it cannot be opened.
  """
  flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
  try:
    descriptor = os.open(path, flags, 0o666)
  except OSError:
    status = places.status_of(path)
    if status is not None:
      places.check_regular(path, status)
    raise
  try:
    places.check_regular(path, os.fstat(descriptor))
  except Refused:
    os.close(descriptor)
    raise
  return descriptor


def append(path, content):
  """Appends bytes to a regular file, and creates it if it is missing."""
  with open(opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
    file.write(content)


def remove(path):
  """Removes a regular file if it exists; raises `Refused` for anything else."""
  status = places.status_of(path)
  if status is not None:
    places.check_regular(path, status)
    path.unlink(missing_ok=True)


def move(source, target):
  """Renames a file or directory; raises `Refused` if the target exists."""
  target.parent.mkdir(parents=True, exist_ok=True)
  if places.status_of(target) is not None:
    raise Refused(f"{target} is there already")
  source.rename(target)
  _sync(target.parent)


@contextlib.contextmanager
def _beside(path):
  """Yields a path of the same name in a new private directory beside it, removed afterwards."""
  path.parent.mkdir(parents=True, exist_ok=True)
  place = pathlib.Path(tempfile.mkdtemp(prefix=places.PREFIX, dir=path.parent))
  try:
    yield place / path.name
  finally:
    shutil.rmtree(place, ignore_errors=True)


def _check_alone(partial):
  """Raises `Refused` if other files were written beside the given path: they would be lost."""
  others = sorted(set(os.listdir(partial.parent)) - {partial.name})
  if others:
    raise Refused(f"files were written beside it, too: {', '.join(others)}")


def _swap(partial, path, known):
  """Puts a new directory in the place of an old one, and removes the old one's `known` files."""
  aside = pathlib.Path(tempfile.mkdtemp(prefix=places.PREFIX, dir=path.parent))
  before = aside / path.name
  try:
    os.replace(path, before)
    try:
      if files_in(before) != sorted(known):
        raise Refused("another process writes to it")
      os.replace(partial, path)
    except BaseException as error:
      try:
        os.replace(before, path)
      except OSError as second:
        raise OSError(f"{error}; what was there before is now {before}") from second
      raise
    for name in known:
      (before / name).unlink()
    for root, _, _ in os.walk(before, topdown=False):
      os.rmdir(root)
  finally:
    with contextlib.suppress(OSError):
      aside.rmdir()  # unknown files stay


def _keep_mode(path, partial):
  """Copies the permissions and, if allowed, the owner of a path to the file that replaces it."""
  status = places.status_of(path)
  if status is None:
    return
  ours = os.stat(partial)
  if (status.st_uid, status.st_gid) != (ours.st_uid, ours.st_gid):
    for owner in (-1, status.st_uid):  # most users may change the group only
      with contextlib.suppress(OSError):
        os.chown(partial, owner, status.st_gid)
  os.chmod(partial, stat.S_IMODE(status.st_mode))


def _sync(path):
  """Flushes a file, or a directory's list of names, to the disk, if the file system supports it."""
  try:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
  except PermissionError:  # the directory may be written but not listed
    return
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in _NO_SYNC:
      raise
  finally:
    os.close(descriptor)
