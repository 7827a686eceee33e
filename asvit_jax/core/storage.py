"""Files: read with one clear error, written all of it or nothing."""

import contextlib
import os
import pathlib
import shutil

from asvit_jax.core.errors import InputError


@contextlib.contextmanager
def replacing(path, what=None):
  """A path beside `path` to write a file or a directory to, which then takes its place.

  Where the block raises, nothing is left but what was there before.

  Args:
    path: of what is written; directories above it are made.
    what: it is, for the error: "weights"; without, an OSError comes through as it is.

  Yields:
    The path to write to.

  Raises:
    InputError: it cannot be written.
  """
  path = pathlib.Path(path)
  partial = path.with_name(path.name + ".partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    yield partial
    _give_name(partial, path)
  except OSError as error:
    if what is None:
      raise
    raise InputError(f"cannot write {what} to {path}: {error}") from error
  finally:
    with contextlib.suppress(OSError):
      remove(partial)


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
    return pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f"image {path} cannot be read ({error.strerror}): {advice}") from error


def remove(path):
  """Removes a file or a directory, if it is there."""
  path = pathlib.Path(path)
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def check_writable(directory, what):
  """Raises InputError where a directory, which need not be there yet, could not be written."""
  place = pathlib.Path(directory)
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
