"""Files on disks and in object stores: found, read with one clear error, written atomically.

Every path that a user gives passes through `path`. On a disk it becomes a `pathlib.Path`; in a
bucket, `gs://…`, an `epath.Path`, which has the same methods. Libraries that open files themselves
get paths of `local`.
"""

import contextlib
import errno
import os
import pathlib
import re
import stat
import tempfile
import uuid

from asvit_jax.core import disks, places
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line

_AWAY = "move it away"  # advice about obstacles in an output directory
_LARGEST_IMAGE = 1 << 30  # bytes of an image file
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def path(name):
  """The path that a text stands for: `~` is the home directory, `gs://…` is in a bucket.

  Args:
    name: text or path.

  Raises:
    InputError: not a path, an unknown user, or a store that is not supported or whose library is
      not installed.
  """
  text = _text(name)
  if "\0" in text:
    raise InputError(f"{on_a_line(text)}: no path has a null character")
  if _URL.match(text):
    from asvit_jax.core import buckets  # imported only when needed

    return buckets.path(text)
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise InputError(f"{text}: {error}") from error


def _text(name):
  """A path as text; raises InputError for anything that is not a path."""
  try:
    return os.fsdecode(name)
  except TypeError as error:
    raise InputError(f"expected a path, got {type(name).__name__}") from error


_parse = path  # for functions with an argument `path`


def in_bucket(path):
  """Whether a path (text, or a result of `path`) is in an object store."""
  return bool(_URL.match(_text(path)))


def on_disk(name, what, advice):
  """As `path`, for inputs that must be on a disk; raises InputError, with the advice, if not."""
  if in_bucket(name):
    raise InputError(
      f"{what} {name} is in an object store, but can only be read from a disk: {advice}"
    )
  return path(name)


@contextlib.contextmanager
def local(name):
  """Yields a local path with the content of `name`: itself, or a temporary copy from a bucket.

  Raises:
    OSError: the copy failed.
  """
  found = path(name)
  if not in_bucket(found):
    yield found
    return
  from asvit_jax.core import buckets

  with tempfile.TemporaryDirectory() as directory:
    copy = pathlib.Path(directory) / found.name
    buckets.download(found, copy)
    yield copy


def read(name, most=None):
  """The bytes of a regular file on a disk or in a store.

  Args:
    name: path of the file.
    most: largest number of bytes allowed; None for any number.

  Raises:
    OSError: the file cannot be read, is not a regular file, or is longer than `most`.
  """
  found = path(name)
  if in_bucket(found):
    from asvit_jax.core import buckets

    with buckets.plain_errors(found):
      return _no_longer(found.read_bytes(), most, found)
  # O_NONBLOCK: opening a pipe would otherwise wait for a writer.
  with open(os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
    status = os.fstat(file.fileno())
    check_regular(found, status)
    if most is None:
      return file.read()
    # Allocate no more than the file's size; files of the kernel, as in /proc, claim a size of 0.
    return _no_longer(file.read(min(most, status.st_size or most) + 1), most, found)


def check_regular(path, status):
  """Raises OSError unless `status`, of `os.stat`, is that of a regular file."""
  if stat.S_ISDIR(status.st_mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
  if not stat.S_ISREG(status.st_mode):  # a device or a pipe may never end
    raise OSError(errno.EINVAL, "not a regular file: save its content as one", str(path))


def _no_longer(content, most, found):
  if most is not None and len(content) > most:
    raise OSError(errno.EFBIG, f"longer than the {most:,} bytes expected", str(found))
  return content


@contextlib.contextmanager
def replacing(path, what=None, earlier=None):
  """Yields a temporary path to write a file or directory to, which then replaces `path`.

  If the block raises, nothing changes. A file takes over the permissions of the one it replaces.
  Only regular files are replaced, never links, devices or pipes; a directory is replaced only by a
  directory, and only if it is empty or `earlier` accepts it. For a path in a bucket, the temporary
  path is on a disk and is uploaded: a file appears at once, a directory file by file.

  Args:
    path: the destination; directories above it are made.
    what: a description for the error: "weights"; if None, an OSError is raised as it is.
    earlier: to write a directory, a function of the path of an existing one: it returns the names
      of the files in it, as `files_in` does, if they may be removed, and raises InputError
      otherwise. None to write a file.

  Yields:
    The path to write to, a `pathlib.Path` at which nothing exists yet.

  Raises:
    InputError: `path` cannot be written, or must not be replaced.
  """
  with contextlib.nullcontext() if what is None else _said(f"{what} to", path):
    found = _named(path, earlier is not None)
    if in_bucket(found):
      from asvit_jax.core import buckets

      writing = buckets.replacing(found, earlier)
    elif earlier is None:
      writing = disks.replacing(found)
    else:
      writing = disks.replacing_directory(found, earlier)
    with writing as partial:
      yield partial


def _named(path, directory=False):
  """As `path`, for outputs: raises `places.Refused` for a text that is not a file name."""
  text = _text(path)
  if directory:
    text = text.rstrip("/") or text
  if not text:
    raise places.Refused("the path is empty: give a name")
  if text.rpartition("/")[2] in ("", ".", ".."):
    raise places.Refused("it does not end in the name of a file: give one")
  return _parse(text)


@contextlib.contextmanager
def _said(what, path):
  """Turns an OSError into the InputError "cannot write WHAT PATH: …"."""
  try:
    yield
  except OSError as error:
    name = on_a_line(path) or repr("")
    raise InputError(f"cannot write {what} {name}: {on_a_line(error)}") from error


def write(path, content, what=None):
  """Writes bytes, or text as UTF-8, atomically; see `replacing`."""
  with replacing(path, what) as partial:
    partial.write_bytes(content if isinstance(content, bytes) else _encoded(content))


def append(path, content):
  """Appends text to a file on a disk, and creates it if missing.

  Raises:
    OSError: it cannot be written, or is a link or anything else but a regular file.
  """
  disks.append(_named(path), _encoded(content))


def _encoded(text):
  return text.encode("utf-8", "backslashreplace")  # a name that is not UTF-8 has lone surrogates


def opened(path, flags):
  """Opens a regular file on a disk with flags of `os.open`; returns its descriptor.

  Raises:
    OSError: it cannot be opened, or is not a regular file.
  """
  return disks.opened(_named(path), flags)


def files_in(directory):
  """Names of the files in and below a directory, relative to it and sorted."""
  found = path(directory)
  if not in_bucket(found):
    return disks.files_in(found)
  from asvit_jax.core import buckets

  return buckets.files_in(found)


def read_image(path, advice="check the path"):
  """The bytes of an image file; raises InputError, with the advice, if it cannot be read."""
  try:
    return read(path, _LARGEST_IMAGE)
  except (OSError, ValueError) as error:  # ValueError: not a possible file name
    reason = getattr(error, "strerror", None) or str(error)
    raise InputError(f"image {path} cannot be read ({reason}): {advice}") from error


def remove(name):
  """Removes a file if it exists; raises OSError for anything but a regular file."""
  found = _named(name)
  if in_bucket(found):
    from asvit_jax.core import buckets

    with buckets.plain_errors(found):
      found.unlink(missing_ok=True)
  else:
    disks.remove(found)


def move(source, target):
  """Renames a file or directory; raises OSError. In a bucket, moves file by file."""
  source, target = path(source), _named(target)
  if in_bucket(source):
    from asvit_jax.core import buckets

    buckets.move(source, target)
  else:
    disks.move(source, target)


def check_file(path, what):
  """Raises InputError if `replacing` could not write a file; leaves the file untouched.

  Args:
    path: path of the file.
    what: a description for the error.
  """
  with _said(f"{what} to", path):
    found = _named(path)
    if in_bucket(found):
      _check_object(found)
    else:
      places.check_file(found)


def check_name(path, what, directory=False):
  """Raises InputError if a path is not the name of a file or directory to write."""
  with _said(f"{what} to", path):
    _named(path, directory)


def check_replaceable(path, what, earlier):
  """As `check_file`, for a directory; `earlier` as for `replacing`."""
  with _said(f"{what} to", path):
    found = _named(path, directory=True)
    if in_bucket(found):
      _check_object(found, earlier)
    else:
      disks.check_known(found, earlier)
      places.check_parent(found)


def check_writable(directory, what, files=(), directories=()):
  """Raises InputError if files could not be written in a directory, which need not exist yet.

  In a bucket, this is tested by writing and removing an object.

  Args:
    directory: its path.
    what: a description for the error.
    files: names of files in it that will be written or replaced.
    directories: names of directories in it that will be made or written to; they must not be
      links.
  """
  with _said(f"to {what}", directory):
    if not _text(directory):
      raise places.Refused("the path is empty: give the name of a directory")
    place = path(directory)
    if in_bucket(place):
      _probe(place)
      return
    places.check_directory(place)
  if places.status_of(place) is not None:
    for name in files:
      with _said(f"{what} to", place / name):
        places.check_replaceable(place / name, _AWAY)
    for name in directories:
      with _said(f"to {what}", place / name):
        places.check_no_link(place / name, _AWAY)


def _check_object(path, earlier=None):
  from asvit_jax.core import buckets

  buckets.check_known(path, earlier)
  _probe(path.parent)


def _probe(place):
  probe = place / f"writable-{uuid.uuid4().hex}"
  write(probe, "")
  remove(probe)
