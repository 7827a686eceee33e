"""NumPy archives: Google's weights for JAX, and other arrays."""

import math
import zipfile
import zlib

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.weights import checks
from asvit_jax.weights.formats import contents, zipped
from asvit_jax.weights.stored import Stored, cleaned

_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


class Npz:
  """The format of NumPy archives; see `formats`."""

  expects = "an .npz file"
  takes_key = True

  def recognizes(self, source):
    """Whether the source is a file with the suffix .npz."""
    return storage.path(source).suffix.lower() == ".npz" and storage.path(source).is_file()

  def read(self, source, key=""):
    """The `Stored` of a file; arrays of Python objects are refused; see `formats`."""
    return Stored(cleaned(arrays(source, f"weights {source}")), key=key)


npz = Npz()


def arrays(source, what, texts=False):
  """{name: array} of a file; arrays of Python objects are refused.

  Args:
    source: path of the file.
    what: its description, for errors.
    texts: whether arrays of texts are allowed, too.

  Raises:
    InputError: the file is damaged, no .npz file, or has other arrays.
  """
  try:
    with storage.local(source) as path:
      contents.check_no_pointer(path, what)
      listed = zipped.members(path, what)
      with zipfile.ZipFile(path) as archive:
        return _arrays(archive, listed, what, "fiubU" if texts else "fiub")
  except InputError:
    raise
  # A damaged header or an encrypted archive can raise any error of the readers.
  except (OSError, ValueError, RuntimeError, EOFError, TypeError, MemoryError) as error:
    raise _unreadable(what, error) from error
  except (zipfile.BadZipFile, zlib.error, OverflowError, SyntaxError, KeyError) as error:
    raise _unreadable(what, error) from error


def _unreadable(what, error):
  return InputError(
    f"{what}: not a readable .npz file of arrays ({on_a_line(str(error)[:200])}); it may be "
    "truncated: fetch it again"
  )


def _arrays(archive, listed, source, kinds):
  """{name: array} of the members of an archive; all headers are read and checked first."""
  # The file may also contain the optimizer's state.
  names = {member: member.filename.removesuffix(".npy") for member in listed}
  names = {k: name for k, name in names.items() if not name.startswith(("opt/state", "opt/0"))}
  headers = {name: _header(archive, member, name, kinds, source) for member, name in names.items()}
  if len(headers) < len(names):
    raise ValueError("two arrays have one name")
  checks.check_listed(headers, source)
  return {name: _numbers(archive, member) for member, name in names.items()}


def _header(archive, member, name, kinds, source):
  """The shape and type name of an array; the member's size must match them."""
  with archive.open(member) as file:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
      raise ValueError(f"{name} is of version {version} of .npy")
    shape, _, kind = _HEADERS[version](file)
    if "U" in kinds and kind.kind in "SO":  # what texts become without care
      found = "bytes" if kind.kind == "S" else "Python objects"
      raise InputError(
        f"{source}: {on_a_line(name[:60])} are {found} ({kind}): expected texts or numbers, "
        "such as np.array(names, dtype=str) or np.array(features, dtype=np.float32)"
      )
    if not (kind.kind in kinds or _is_bfloat16(kind)):
      raise ValueError(f"{name} is of type {kind}")
    if (
      min(shape, default=0) < 0
      or math.prod(shape) * kind.itemsize != member.file_size - file.tell()
    ):
      raise ValueError(f"the number of bytes of {name} does not match its shape {shape}")
  return shape, kind.name


def _numbers(archive, member):
  """Reads an array. Untyped 2-byte values are bfloat16, which NumPy does not know."""
  with archive.open(member) as file:
    value = np.lib.format.read_array(file, allow_pickle=False)
  if _is_bfloat16(value.dtype):
    import ml_dtypes

    return value.view(ml_dtypes.bfloat16)
  return value


def _is_bfloat16(kind):
  return kind.kind == "V" and kind.itemsize == 2 and kind.fields is None and kind.subdtype is None
