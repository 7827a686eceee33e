"""Files: found on disks and in object stores, read with one clear error, written whole or not.

Every path that a user gives comes through `path`. On a disk it is a `pathlib.Path`; in a bucket,
`gs://…`, an `epath.Path`, which has the same methods. Libraries that open files by themselves get
`local` ones.
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

_AWAY = "move it away"  # what is in a directory that was given
_LARGEST_IMAGE = 1 << 30  # bytes of its file
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def path(name):
  """The path that a text means: `~` is the home directory, `gs://…` is in a bucket.

  Args:
    name: text or path.

  Raises:
    InputError: no path; a kind of store that is not known or not installed, or no such user.
  """
  text = _text(name)
  if "\0" in text:
    raise InputError(f"{on_a_line(text)}: no path has a null character")
  if _URL.match(text):
    from asvit_jax.core import buckets  # nothing else pays for it

    return buckets.path(text)
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise InputError(f"{text}: {error}") from error


def _text(name):
  """A path as text; raises InputError for what is no path."""
  try:
    return os.fsdecode(name)
  except TypeError as error:
    raise InputError(f"expected a path, got {type(name).__name__}") from error


_parse = path  # for functions with an argument of that name


def in_bucket(path):
  """Whether a path, of `path` or as text, is in an object store."""
  return bool(_URL.match(_text(path)))


def on_disk(name, what, advice):
  """As `path`, for what can only be read from a disk; raises InputError, with an advice, else."""
  if in_bucket(name):
    raise InputError(
      f"{what} {name} is in an object store, and can only be read from a disk: {advice}"
    )
  return path(name)


@contextlib.contextmanager
def local(name):
  """A path on a disk with what is at a path: itself, or of a bucket a copy that goes afterwards.

  Raises:
    OSError: it cannot be copied.
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
  """The bytes of a regular file, wherever it is.

  Args:
    name: its path.
    most: bytes that it may have; None for any number.

  Raises:
    OSError: it cannot be read, is no file (a device or a pipe may never end), or is longer.
  """
  found = path(name)
  if in_bucket(found):
    from asvit_jax.core import buckets

    with buckets.plain_errors(found):
      return _no_longer(found.read_bytes(), most, found)
  # Opening a pipe to read it would wait for somebody to write.
  with open(os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
    status = os.fstat(file.fileno())
    check_regular(found, status)
    if most is None:
      return file.read()
    # No more memory than there is to read; files of the system itself say that they are empty.
    return _no_longer(file.read(min(most, status.st_size or most) + 1), most, found)


def check_regular(path, status):
  """Raises OSError unless the status, of `os.stat`, of what is at a path is that of a file."""
  if stat.S_ISDIR(status.st_mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
  if not stat.S_ISREG(status.st_mode):  # a device or a pipe may never end
    raise OSError(errno.EINVAL, "not a regular file: save what it gives as one", str(path))


def _no_longer(content, most, found):
  if most is not None and len(content) > most:
    raise OSError(errno.EFBIG, f"longer than the {most:,} bytes expected", str(found))
  return content


@contextlib.contextmanager
def replacing(path, what=None, earlier=None):
  """A path beside `path` to write a file or a directory to, which then takes its place.

  Where the block raises, nothing is left but what was there before. What takes the place of a file
  has its permissions. Nothing but a regular file is replaced: no link, no device, no pipe; and a
  directory only by a directory, and only one that is empty or that `earlier` knows. For a path in a
  bucket it is one on a disk, which is then copied: a file appears at once, a directory file by
  file.

  Args:
    path: of what is written; directories above it are made.
    what: it is, for the error: "weights"; without, an OSError comes through as it is.
    earlier: where a directory is written, a function of the path of one that is there: it returns
      the names of the files in it, as `files_in` does, where they may go, and raises InputError
      where they are not to be touched. None where a file is written.

  Yields:
    The path to write to, a `pathlib.Path`; nothing is there yet.

  Raises:
    InputError: it cannot be written, or what is there is not to be replaced.
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
  """As `path`, of what is to be written: raises `places.Refused` for a text that names nothing."""
  text = _text(path)
  if directory:
    text = text.rstrip("/") or text
  if not text:
    raise places.Refused("the path is empty: give a name")
  if text.rpartition("/")[2] in ("", ".", ".."):
    raise places.Refused("it is no name of a file: give one")
  return _parse(text)


@contextlib.contextmanager
def _said(what, path):
  """Turns an OSError into an InputError that says what could not be written: "weights to"."""
  try:
    yield
  except OSError as error:
    name = on_a_line(path) or repr("")
    raise InputError(f"cannot write {what} {name}: {on_a_line(error)}") from error


def write(path, content, what=None):
  """Writes bytes, or text as UTF-8; see `replacing`."""
  with replacing(path, what) as partial:
    partial.write_bytes(content if isinstance(content, bytes) else _encoded(content))


def append(path, content):
  """Adds text to a file on a disk, which is made where it is not there; raises OSError.

  A link, and anything else but a regular file, is an error.
  """
  disks.append(_named(path), _encoded(content))


def _encoded(text):
  return text.encode("utf-8", "backslashreplace")  # names that are no UTF-8 cannot be written


def opened(path, flags):
  """A descriptor of a regular file on a disk, see `os.open`; raises OSError for anything else."""
  return disks.opened(_named(path), flags)


def files_in(directory):
  """The names, relative to a directory, of the files in and below it, sorted."""
  found = path(directory)
  if not in_bucket(found):
    return disks.files_in(found)
  from asvit_jax.core import buckets

  return buckets.files_in(found)


def read_image(path, advice="check the path"):
  """The bytes of an image file; raises InputError, with an advice, where it cannot be read."""
  try:
    return read(path, _LARGEST_IMAGE)
  except (OSError, ValueError) as error:  # the latter of names that no file can have
    reason = getattr(error, "strerror", None) or str(error)
    raise InputError(f"image {path} cannot be read ({reason}): {advice}") from error


def remove(name):
  """Removes a file, if it is there; raises OSError for a directory, and for all but files."""
  found = _named(name)
  if in_bucket(found):
    from asvit_jax.core import buckets

    with buckets.plain_errors(found):
      found.unlink(missing_ok=True)
  else:
    disks.remove(found)


def move(source, target):
  """Gives a file or a directory another name; raises OSError. In a bucket file by file."""
  source, target = path(source), _named(target)
  if in_bucket(source):
    from asvit_jax.core import buckets

    buckets.move(source, target)
  else:
    disks.move(source, target)


def check_file(path, what):
  """Raises InputError where `replacing` could not write a file; all but the file is made sure of.

  Args:
    path: of the file.
    what: it is, for the error.
  """
  with _said(f"{what} to", path):
    found = _named(path)
    if in_bucket(found):
      _check_object(found)
    else:
      places.check_file(found)


def check_name(path, what, directory=False):
  """Raises InputError where a path, of a file or of a directory, names nothing to be written."""
  with _said(f"{what} to", path):
    _named(path, directory)


def check_replaceable(path, what, earlier):
  """As `check_file`, of a directory; `earlier` as for `replacing`."""
  with _said(f"{what} to", path):
    found = _named(path, directory=True)
    if in_bucket(found):
      _check_object(found, earlier)
    else:
      disks.check_known(found, earlier)
      places.check_parent(found)


def check_writable(directory, what, files=(), directories=()):
  """Raises InputError where a directory, which need not be there yet, could not be written.

  In a bucket that is known only by writing: an object is written and removed.

  Args:
    directory: its path.
    what: it is, for the error.
    files: names of files in it that are going to be written or replaced.
    directories: names of directories in it that are going to be made or written in; links out of
      it are none.
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
