"""Devices: the axis that batches are split along, and the meshes of devices."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"  # of a program over devices: which part of the batch


def local_mesh():
  """The devices of this host."""
  return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def global_mesh():
  """The devices of all hosts."""
  return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def on_each_local(tree):
  """A copy on each of this host's devices; nothing moves where it is there already."""
  return jax.device_put(tree, NamedSharding(local_mesh(), PartitionSpec()))


def memory_mb(program):
  """MiB of a device that a compiled program takes, by the compiler's account.

  Args:
    program: what `jax.jit(…).lower(…).compile()` returns.

  Returns:
    Arguments and temporaries together; None where the compiler does not say.
  """
  analysis = program.memory_analysis()
  if analysis is None:
    return None
  return (analysis.argument_size_in_bytes + analysis.temp_size_in_bytes) / 2**20
