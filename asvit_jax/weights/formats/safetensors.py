"""Safetensors files; this package stores descriptions and thresholds in the header."""

import ml_dtypes
import numpy as np
import safetensors as library
import safetensors.numpy

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.vit import description as descriptions
from asvit_jax.weights import checks
from asvit_jax.weights.formats import contents
from asvit_jax.weights.names import THRESHOLD
from asvit_jax.weights.stored import Stored, cleaned

# This package's keys in the header.
THRESHOLDS, DESCRIPTION = "thresholds", "asvit_jax"
# The longest header that the library reads; a header of 65,536 tensors takes 8 MB.
_MOST_BYTES = 100_000_000
# Types that the library converts to arrays; integers are refused later.
_TYPES = frozenset(
  (
    *("F64", "F32", "F16", "BF16", "C64", "BOOL"),
    *(f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64)),
  )
)
# {further types that are read here: name in ml_dtypes}.
_FLOAT8 = {
  "F8_E4M3": "float8_e4m3fn",
  "F8_E4M3FNUZ": "float8_e4m3fnuz",
  "F8_E5M2": "float8_e5m2",
  "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


class Safetensors:
  """The format of safetensors files, and of all other files; see `formats`."""

  expects = "a .safetensors file"
  takes_key = True

  def recognizes(self, source):
    """Whether the source is a file, with any suffix."""
    return storage.path(source).is_file()

  def read(self, source, key=""):
    """The `Stored` of a file; see `formats`."""
    try:
      with storage.local(source) as path:
        contents.check_no_pointer(path, f"weights {source}")
        tensors, metadata = _read(path, f"weights {source}")
      header = f"weights {source}: its metadata"
      description = descriptions.loads(metadata.get(DESCRIPTION, "{}"), f"{header}, {DESCRIPTION}")
    except InputError:
      raise
    except (library.SafetensorError, OSError, KeyError, ValueError) as error:
      raise InputError(
        f"weights {source}: not a readable safetensors file ({error}); it may be truncated or of "
        "another format: fetch or export it again"
      ) from error
    tensors |= _thresholds(metadata, tensors, f"weights {source}")
    return Stored(cleaned(tensors), description, key=key)


safetensors = Safetensors()


def check_header(content, source):
  """Raises InputError if a file's bytes have a longer header than loading accepts."""
  length = int.from_bytes(content[:8], "little")
  if length > _MOST_BYTES:
    raise InputError(
      f"{source} would have a header of {length:,} bytes, expected at most {_MOST_BYTES:,}: give "
      "shorter names of classes"
    )


def _read(path, source):
  """({name: array}, metadata) of a file on a disk; its list of tensors is checked first."""
  with path.open("rb") as file:
    start = file.read(8)
  if len(start) == 8 and int.from_bytes(start, "little") > _MOST_BYTES:
    raise InputError(
      f"{source}: not a readable safetensors file (its header would have "
      f"{int.from_bytes(start, 'little'):,} bytes, expected at most {_MOST_BYTES:,}); it may be of "
      "another format: fetch or export it again"
    )
  with library.safe_open(path, "numpy") as file:
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    listed = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
    checks.check_listed(listed, source)
    for name, (_, kind) in listed.items():
      if kind not in _TYPES and kind not in _FLOAT8:
        raise InputError(
          f"{source}: tensor {name} is of type {kind}: quantised weights are not supported; give "
          "them in float32, float16 or bfloat16"
        )
    known = [name for name, (_, kind) in listed.items() if kind in _TYPES]
    tensors = {name: file.get_tensor(name) for name in known}
    metadata = file.metadata() or {}
  if len(known) < len(listed):  # the library cannot convert these types
    for name, found in library.deserialize(path.read_bytes()):
      if name in listed and name not in tensors:
        kind = getattr(ml_dtypes, _FLOAT8[listed[name][1]])
        tensors[name] = np.frombuffer(found["data"], kind).reshape(listed[name][0])
  return tensors, metadata


def _thresholds(metadata, tensors, source):
  """{name: array} of the thresholds in a header: one list, or one list per budget."""
  what = f"{source}: its metadata, {THRESHOLDS}"
  found = descriptions.load_thresholds(metadata.get(THRESHOLDS, "[]"), what)
  columns = np.moveaxis(np.asarray(found, np.float32), -1, 0)
  named = {THRESHOLD.format(i): column for i, column in enumerate(columns)}
  if twice := named.keys() & tensors.keys():
    raise InputError(f"{what} are also among its tensors ({min(twice)}): remove one of the two")
  return named
