"""NumPy archives: Google's weights for JAX."""

import zipfile
import zlib

import numpy as np

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.weights.stored import Stored, cleaned


class Npz:
  """See `formats`."""

  expects = "an .npz file"
  takes_key = True

  def recognizes(self, source):
    """A file of that suffix."""
    return storage.path(source).suffix == ".npz" and storage.path(source).is_file()

  def read(self, source, key=""):
    """See `formats`; arrays of Python objects are refused."""
    try:
      with storage.local(source) as path, np.load(path) as file:
        tensors = {name: _numbers(name, file[name]) for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
      raise InputError(
        f"weights {source}: not a readable .npz file of arrays ({str(error)[:200]}); it may be "
        "truncated: fetch it again"
      ) from error
    # Beside the weights, an optimizer's state may stand.
    tensors = {k: v for k, v in tensors.items() if not k.startswith(("opt/state", "opt/0"))}
    return Stored(cleaned(tensors), key=key)


npz = Npz()


def _numbers(name, value):
  """An array; two bytes without a type are bfloat16, which NumPy does not know."""
  if value.dtype.kind == "V" and value.dtype.itemsize == 2:
    import ml_dtypes

    return value.view(ml_dtypes.bfloat16)
  if value.dtype.kind not in "fiub":
    raise ValueError(f"{name} is of type {value.dtype}")
  return value
