"""Writing to disks: a file appears whole or not at all, and nothing else changes.

What is being written has a directory of its own beside the place where it goes. The system makes
that directory for this process alone, so two processes that write one path do not meet, a reader
sees the earlier file or the new one, and what a killed process leaves is in nobody's way.

Only `storage` uses this. Nothing else in the package gives other names to files or removes any.
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
  """A path to write a file to, which then takes the place of `path`; where it raises, nothing does.

  The permissions of a file that was there stay.

  Raises:
    Refused: what is there is not to be replaced, see `places.check_replaceable`.
    OSError: it cannot be written.
  """
  places.check_replaceable(path)
  with _beside(path) as partial:
    yield partial
    if not stat.S_ISREG(os.lstat(partial).st_mode):
      raise Refused("something else than a file was written")
    _check_alone(partial)
    _keep_mode(path, partial)
    _sync(partial)
    places.check_replaceable(path)  # it may have taken hours
    os.replace(partial, path)
    _sync(path.parent)


@contextlib.contextmanager
def replacing_directory(path, earlier):
  """As `replacing`, of a directory.

  Args:
    path: where it goes: nothing is there, an empty directory, or one that `earlier` knows.
    earlier: function of the path that returns the names of the files in it, as `files_in` does,
      where they may go; raises an error where they are not to be touched.
  """
  check_known(path, earlier)
  with _beside(path) as partial:
    yield partial
    if not stat.S_ISDIR(os.lstat(partial).st_mode):
      raise Refused("something else than a directory was written")
    _check_alone(partial)
    for root, _, files in os.walk(partial):
      for name in (*files, ""):
        _sync(os.path.join(root, name))
    known = check_known(path, earlier)
    _keep_mode(path, partial)
    if known:
      _swap(partial, path, known)
    else:
      os.replace(partial, path)  # where a directory is not empty by now, the system refuses
    _sync(path.parent)


def check_known(path, earlier):
  """The names of the files in a directory that may go, as `earlier` says; [] where there are none.

  Raises:
    Refused: it is no directory.
  """
  places.check_no_link(path)
  there = places.status_of(path) is not None and os.listdir(path)
  return earlier(path) if there else []


def files_in(directory):
  """The names, relative to a directory, of all below it that is not a directory, links included."""
  found = []
  for root, directories, files in os.walk(directory):
    links = [name for name in directories if os.path.islink(os.path.join(root, name))]
    found += [os.path.relpath(os.path.join(root, name), directory) for name in (*files, *links)]
  return sorted(found)


def opened(path, flags):
  """A descriptor of a regular file, which is not a link, at a path; without waiting for anybody.

  Raises:
    Refused: it is something else.
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
  """Adds bytes to a regular file, which is made where it is not there."""
  with open(opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
    file.write(content)


def remove(path):
  """Removes a file, if it is there; raises `Refused` for anything but a regular file."""
  status = places.status_of(path)
  if status is not None:
    places.check_regular(path, status)
    path.unlink(missing_ok=True)


def move(source, target):
  """Gives a file or a directory another name, which nothing has yet."""
  target.parent.mkdir(parents=True, exist_ok=True)
  if places.status_of(target) is not None:
    raise Refused(f"{target} is there already")
  source.rename(target)
  _sync(target.parent)


@contextlib.contextmanager
def _beside(path):
  """A path of the same name in a new directory that is nobody else's, which goes afterwards."""
  path.parent.mkdir(parents=True, exist_ok=True)
  place = pathlib.Path(tempfile.mkdtemp(prefix=places.PREFIX, dir=path.parent))
  try:
    yield place / path.name
  finally:
    shutil.rmtree(place, ignore_errors=True)


def _check_alone(partial):
  """Raises `Refused` where files were written beside the path that was given, which would go."""
  others = sorted(set(os.listdir(partial.parent)) - {partial.name})
  if others:
    raise Refused(f"files were written beside it, too: {', '.join(others)}")


def _swap(partial, path, known):
  """Gives a directory the name of another one, whose files, of these names, are then removed."""
  aside = pathlib.Path(tempfile.mkdtemp(prefix=places.PREFIX, dir=path.parent))
  before = aside / path.name
  try:
    os.replace(path, before)
    try:
      if files_in(before) != sorted(known):
        raise Refused("somebody else writes in it")
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
      aside.rmdir()  # what is still in it stays


def _keep_mode(path, partial):
  """Gives what is to take the place of a path its permissions and, if allowed, its owner."""
  status = places.status_of(path)
  if status is None:
    return
  ours = os.stat(partial)
  if (status.st_uid, status.st_gid) != (ours.st_uid, ours.st_gid):
    for owner in (-1, status.st_uid):  # most may give a file to another group at best
      with contextlib.suppress(OSError):
        os.chown(partial, owner, status.st_gid)
  os.chmod(partial, stat.S_IMODE(status.st_mode))


def _sync(path):
  """Returns once a file, or the names in a directory, are on the disk, if its system can say so."""
  try:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
  except PermissionError:  # a directory that may be written, and not listed
    return
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno not in _NO_SYNC:
      raise
  finally:
    os.close(descriptor)
