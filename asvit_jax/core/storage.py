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
import shutil
import stat
import tempfile
import uuid

from asvit_jax.core.errors import InputError

_LARGEST_IMAGE = 1 << 30  # bytes of its file
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def path(name):
  """The path that a text means: `~` is the home directory, `gs://…` is in a bucket.

  Args:
    name: text or path.

  Raises:
    InputError: a kind of store that is not known or not installed, or no such user.
  """
  text = os.fspath(name)
  if _URL.match(text):
    from asvit_jax.core import buckets  # nothing else pays for it

    return buckets.path(text)
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:
    raise InputError(f"{text}: {error}") from error


_parse = path  # for functions with an argument of that name


def in_bucket(path):
  """Whether a path, of `path` or as text, is in an object store."""
  return bool(_URL.match(os.fspath(path)))


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
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISDIR(mode):
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(found))
    if not stat.S_ISREG(mode):
      raise OSError(errno.EINVAL, "not a regular file: save what it gives as one", str(found))
    return _no_longer(file.read(-1 if most is None else most + 1), most, found)


def _no_longer(content, most, found):
  if most is not None and len(content) > most:
    raise OSError(errno.EFBIG, f"longer than the {most:,} bytes expected", str(found))
  return content


@contextlib.contextmanager
def replacing(path, what=None):
  """A path beside `path` to write a file or a directory to, which then takes its place.

  Where the block raises, nothing is left but what was there before. For a path in a bucket it is
  one on a disk, which is then copied: a file appears at once, a directory file by file.

  Args:
    path: of what is written; directories above it are made.
    what: it is, for the error: "weights"; without, an OSError comes through as it is.

  Yields:
    The path to write to, a `pathlib.Path`.

  Raises:
    InputError: it cannot be written.
  """
  path = _parse(path)
  try:
    with (_uploaded if in_bucket(path) else _renamed)(path) as partial:
      yield partial
  except OSError as error:
    if what is None:
      raise
    raise InputError(f"cannot write {what} to {path}: {error}") from error


@contextlib.contextmanager
def _renamed(path):
  partial = path.with_name(path.name + ".partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    yield partial
    _give_name(partial, path)
  finally:
    with contextlib.suppress(OSError):
      remove(partial)


@contextlib.contextmanager
def _uploaded(path):
  from asvit_jax.core import buckets

  with tempfile.TemporaryDirectory() as directory:
    partial = pathlib.Path(directory) / path.name
    yield partial
    buckets.upload(partial, path)


def write(path, content, what=None):
  """Writes text or bytes; see `replacing`."""
  with replacing(path, what) as partial:
    if isinstance(content, bytes):
      partial.write_bytes(content)
    else:
      partial.write_text(content)


def read_image(path, advice="check the path"):
  """The bytes of an image file; raises InputError, with an advice, where it cannot be read."""
  try:
    return read(path, _LARGEST_IMAGE)
  except (OSError, ValueError) as error:  # the latter of names that no file can have
    reason = getattr(error, "strerror", None) or str(error)
    raise InputError(f"image {path} cannot be read ({reason}): {advice}") from error


def remove(name):
  """Removes a file or a directory, if it is there."""
  found = path(name)
  if in_bucket(found):
    from asvit_jax.core import buckets

    with buckets.plain_errors(found):
      found.rmtree() if found.is_dir() else found.unlink(missing_ok=True)
  elif found.is_dir() and not found.is_symlink():
    shutil.rmtree(found)
  else:
    found.unlink(missing_ok=True)


def move(source, target):
  """Gives a file or a directory another name; raises OSError. In a bucket file by file."""
  source, target = path(source), path(target)
  if in_bucket(source):
    from asvit_jax.core import buckets

    buckets.move(source, target)
    return
  target.parent.mkdir(parents=True, exist_ok=True)
  source.rename(target)


def check_writable(directory, what):
  """Raises InputError where a directory, which need not be there yet, could not be written.

  In a bucket that is known only by writing: an object is written and removed.
  """
  place = path(directory)
  if in_bucket(place):
    probe = place / f"writable-{uuid.uuid4().hex}"
    try:
      write(probe, "")
      remove(probe)
    except OSError as error:
      raise InputError(f"cannot write to {what} {directory}: {error}") from error
    return
  while not place.exists():
    place = place.parent
  if not (place.is_dir() and os.access(place, os.W_OK)):
    raise InputError(f"cannot write to {what} {directory}: {place} is not a writable directory")


def _give_name(partial, path):
  """Renames; a directory that had the name before is moved aside until that is done."""
  before = path.with_name(path.name + ".before")
  if path.is_dir():
    remove(before)
    os.replace(path, before)
  try:
    os.replace(partial, path)
  except OSError:
    if before.exists():
      os.replace(before, path)
    raise
  remove(before)
