"""Meshes of devices, the axis along which batches are split, and the precision of products."""

import contextlib

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"  # name of the axis over devices: each holds a part of the batch
PRECISIONS = ("default", "high", "highest")  # of float32 matrix products; see `precision`


def local_mesh():
  """A mesh of the devices of this host."""
  return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def global_mesh(devices=None):
  """A mesh of the devices of all hosts, or of the given devices."""
  count = jax.device_count() if devices is None else len(devices)
  automatic = (jax.sharding.AxisType.Auto,)
  return jax.make_mesh((count,), (AXIS,), axis_types=automatic, devices=devices)


def on_each_local(tree):
  """Copies a tree to each device of this host; arrays already there are not moved."""
  return jax.device_put(tree, NamedSharding(local_mesh(), PartitionSpec()))


def split_over_local(tree):
  """Splits arrays (b, …) over the devices of this host; arrays already there are not moved."""
  return jax.device_put(tree, NamedSharding(local_mesh(), PartitionSpec(AXIS)))


def host_device():
  """The CPU device beside the accelerators, or None if JAX_PLATFORMS excludes it.

  Used for small computations that must not wait in the queue of a busy accelerator.
  """
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return None


def memory_mb(program):
  """Memory in MiB that a compiled program takes on a device, as the compiler reports it.

  Args:
    program: the result of `jax.jit(…).lower(…).compile()`.

  Returns:
    Arguments plus temporaries; None if the compiler does not report them.
  """
  analysis = program.memory_analysis()
  if analysis is None:
    return None
  return (analysis.argument_size_in_bytes + analysis.temp_size_in_bytes) / 2**20


def precision(name):
  """A context that sets the precision of float32 matrix products in programs compiled inside it.

  Args:
    name: one of `PRECISIONS`. "default" is the chip's own: TF32 on NVIDIA GPUs, one bfloat16 pass
      on TPUs, float32 on CPUs. "highest" is float32 everywhere, several times slower on
      accelerators.
  """
  return contextlib.nullcontext() if name == "default" else jax.default_matmul_precision(name)


@contextlib.contextmanager
def exact():
  """A context for comparing numbers: on the CPU, if there is one, and in float32 everywhere."""
  with jax.default_device(host_device()), precision("highest"):
    yield
