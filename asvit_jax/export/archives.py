"""Zip archives of others: no more is unpacked than their sizes, and their headers, allow."""

import contextlib
import io
import math
import zipfile

import numpy as np

from asvit_jax.core.errors import InputError

_MOST_FILES = 10_000
# Weights and programs are stored as they are, and packed again they get little smaller. Zeros would
# get a thousand times smaller.
_MOST_RATIO, _FREE = 16, 16 << 20
# Of the others, zipfile unpacks all that it has read, whatever that becomes.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextlib.contextmanager
def opened(file, what, size=None):
  """A `zipfile.ZipFile` to read, whose files together are of a size that it can hold.

  Args:
    file: path, or bytes.
    what: it is, for the error.
    size: bytes that it takes packed, where it was itself in an archive: what is packed twice
      unpacks to no more.

  Raises:
    InputError: more files, or more in them, than it can hold; or one that is there twice.
    zipfile.BadZipFile: no archive, or packed in another way than by deflate.
  """
  if size is None:
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
  with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
    entries = archive.infolist()
    most, unpacked = _FREE + _MOST_RATIO * size, sum(entry.file_size for entry in entries)
    if unpacked > most or len(entries) > _MOST_FILES:
      raise InputError(
        f"{what} has {size:,} bytes and would unpack to {unpacked:,} in {len(entries):,} files: "
        "no weights or programs do; do not open it"
      )
    if len(set(archive.namelist())) < len(entries):
      raise InputError(f"{what} has a file twice: fetch or export it again")
    if any(entry.compress_type not in _PACKED for entry in entries):
      raise zipfile.BadZipFile("packed in another way than by deflate")
    yield archive


def read(archive, name):
  """The bytes of a file in an archive, and no more of them than its header says.

  Raises:
    KeyError: there is none of that name.
    zipfile.BadZipFile: it is damaged.
  """
  size = archive.getinfo(name).file_size
  with archive.open(name) as file:
    parts, left = [], size
    while left:  # in parts: in one, the unpacked could be longer before it is cut
      part = file.read(min(left, 1 << 24))
      if not part:
        raise zipfile.BadZipFile(f"{name} is shorter than its {size:,} bytes")
      parts.append(part)
      left -= len(part)
  return b"".join(parts)


def arrays(content, what, size=None):
  """{name: array} of the bytes of an .npz file; arrays of Python objects are refused.

  Args:
    content: bytes.
    what: they are, for the error.
    size: as for `opened`.

  Raises:
    InputError: an array that is larger than what the file holds.
    zipfile.BadZipFile: no such file.
  """
  with opened(content, what, size) as archive:
    return {
      name.removesuffix(".npy"): _array(read(archive, name), f"{what}, {name}")
      for name in archive.namelist()
    }


def _array(content, what):
  file = io.BytesIO(content)
  try:
    version = np.lib.format.read_magic(file)
    header = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = header(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
      raise ValueError(f"{shape} of {dtype} is not what the file holds")
    return np.load(io.BytesIO(content), allow_pickle=False)
  except (ValueError, KeyError, OSError) as error:
    raise InputError(f"{what} is no array ({str(error)[:200]}): export it again") from error
