"""What our two methods share: thresholds decide, and every image keeps its own number of tokens."""

import functools

from asvit_jax.sparsity import complexity
from asvit_jax.sparsity.executions import EXECUTIONS
from asvit_jax.sparsity.executions.in_place import masked
from asvit_jax.sparsity.gates import hard_gate


class Thresholds:
  """Packed in inference, and masked in training with constant thresholds; see `methods`."""

  adaptive = True

  def solve(self, arch, budget):
    """(): what is kept follows from thresholds. Raises InputError for an impossible budget."""
    complexity.check_budget(arch, budget)
    return ()

  def cost(self, arch, counts, real=False):
    """(..., stages) patches kept -> (...) GMACs."""
    return complexity.cost(arch, counts, real)

  def execution(self, counts):
    """Function that runs the network as inference does, see `methods`."""
    del counts
    return EXECUTIONS["packed"]

  def training(self, counts):
    """Function that runs the network as fine-tuning does, see `methods`."""
    del counts
    return functools.partial(masked, gate=hard_gate)
