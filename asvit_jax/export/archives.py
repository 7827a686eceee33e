"""Safe reading of untrusted zip archives: never unpacks more than the sizes in their headers."""

import contextlib
import io
import math
import zipfile

import numpy as np

from asvit_jax.core.errors import InputError

_MOST_FILES = 10_000
# Weights and programs are stored uncompressed, and compress little. Zeros would compress a
# thousandfold.
_MOST_RATIO, _FREE = 16, 16 << 20
# With other methods, zipfile unpacks all data that it has read, of any size.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextlib.contextmanager
def opened(file, what, size=None):
  """Opens a `zipfile.ZipFile` for reading, if the total size of its files is plausible.

  Args:
    file: path, or bytes.
    what: a description for the error.
    size: the archive's compressed size in bytes if it is itself in an archive: data compressed
      twice must not unpack to more.

  Raises:
    InputError: there are implausibly many or large files, or one appears twice.
    zipfile.BadZipFile: not an archive, or compressed by another method than deflate.
  """
  if size is None:
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
  with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
    entries = archive.infolist()
    most, unpacked = _FREE + _MOST_RATIO * size, sum(entry.file_size for entry in entries)
    if unpacked > most or len(entries) > _MOST_FILES:
      raise InputError(
        f"{what} has {size:,} bytes and would unpack to {unpacked:,} in {len(entries):,} files, "
        "far more than weights or programs do: do not open it"
      )
    if len(set(archive.namelist())) < len(entries):
      raise InputError(f"{what} has a file twice: fetch or export it again")
    if any(entry.compress_type not in _PACKED for entry in entries):
      raise zipfile.BadZipFile("compressed by another method than deflate")
    yield archive


def read(archive, name):
  """The bytes of a file in an archive, at most as many as its header says.

  Raises:
    KeyError: there is no file of that name.
    zipfile.BadZipFile: the file is damaged.
  """
  size = archive.getinfo(name).file_size
  with archive.open(name) as file:
    parts, left = [], size
    while left:  # in parts: a single read could unpack more before it is truncated
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
    what: a description for the error.
    size: as for `opened`.

  Raises:
    InputError: the size of an array does not match its data.
    zipfile.BadZipFile: not an .npz file.
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
      raise ValueError(f"{shape} of {dtype} does not match the file's data")
    return np.load(io.BytesIO(content), allow_pickle=False)
  except (ValueError, KeyError, OSError) as error:
    raise InputError(f"{what} is not an array ({str(error)[:200]}): export it again") from error
