"""Safetensors files, with timm's names or the authors'; what we add stands in the header."""

import numpy as np
import safetensors as library
import safetensors.numpy

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.vit import description as descriptions
from asvit_jax.weights.names import THRESHOLD
from asvit_jax.weights.stored import Stored, cleaned

# Keys of the header, besides those of others.
THRESHOLDS, DESCRIPTION = "thresholds", "asvit_jax"


class Safetensors:
  """See `formats`."""

  expects = "a .safetensors file"
  takes_key = True

  def recognizes(self, source):
    """Any file."""
    return storage.path(source).is_file()

  def read(self, source, key=""):
    """See `formats`."""
    try:
      with storage.local(source) as path, library.safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    except (library.SafetensorError, OSError, KeyError, ValueError) as error:
      raise InputError(
        f"weights {source}: not a readable safetensors file ({error}); it may be truncated or of "
        "another format: fetch or export it again"
      ) from error
    header = f"weights {source}: its metadata"
    thresholds = descriptions.load_thresholds(
      metadata.get(THRESHOLDS, "[]"), f"{header}, {THRESHOLDS}"
    )
    thresholds = np.asarray(thresholds, np.float32)
    description = descriptions.loads(metadata.get(DESCRIPTION, "{}"), f"{header}, {DESCRIPTION}")
    stages = enumerate(np.moveaxis(thresholds, -1, 0))
    named = {THRESHOLD.format(i): value for i, value in stages}
    return Stored(cleaned(tensors | named), description, key=key)


safetensors = Safetensors()
