"""The safetensors format: weights with timm's names, for timm (dense) and for this package."""

import jax
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.export.formats.base import Format
from asvit_jax.weights.formats.safetensors import safetensors as reader
from asvit_jax.weights.names import from_timm
from asvit_jax.weights.saving import check_name


class Safetensors(Format):
  """Weights as safetensors, with the thresholds in the header; see `formats` for the interface."""

  name = "safetensors"

  def check_path(self, path):
    """As for other formats; also refuses the suffix of another format."""
    super().check_path(path)
    check_name(path)

  def write(self, network, path, batch_sizes):
    """Writes a `Network` to a path, see `formats`."""
    del batch_sizes
    network.save(path, thresholds_as_metadata=True)

  def load(self, path):
    """Raises InputError: the format holds weights, and no programs."""
    raise InputError(f"artifact {path}: {self.name} holds weights only; give it as --weights")

  def least_versions(self, path):
    """The oldest version of safetensors that was tried, see `formats`."""
    del path
    return {"safetensors": "0.3.1"}

  def verify(self, network, path, execution=None):
    """Raises InputError unless weights and description are bit-equal, see `formats`."""
    stored = reader.read(str(path))
    arch = network.arch if network.prunes else network.arch.dense
    params = from_timm(arch, stored.tensors, f"weights {path}")
    if not _identical(params, network.params) or stored.description != network.describe():
      raise InputError(f"{path} does not hold the weights that were written; nothing was exported")
    return 0.0


safetensors = Safetensors()


def _identical(a, b):
  same = jax.tree.map(np.array_equal, a, b)
  return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(same))
