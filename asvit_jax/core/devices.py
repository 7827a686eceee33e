"""Devices: the axis that batches are split along, and the meshes of devices."""

import contextlib

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"  # of a program over devices: which part of the batch
PRECISIONS = ("default", "high", "highest")  # of products of float32 arrays; see `precision`


def local_mesh():
  """The devices of this host."""
  return Mesh(np.asarray(jax.local_devices()), (AXIS,))


def global_mesh(devices=None):
  """The devices of all hosts, or those given."""
  count = jax.device_count() if devices is None else len(devices)
  automatic = (jax.sharding.AxisType.Auto,)
  return jax.make_mesh((count,), (AXIS,), axis_types=automatic, devices=devices)


def on_each_local(tree):
  """A copy on each of this host's devices; nothing moves where it is there already."""
  return jax.device_put(tree, NamedSharding(local_mesh(), PartitionSpec()))


def split_over_local(tree):
  """Arrays, (b, …), over this host's devices; nothing moves where they are there already."""
  return jax.device_put(tree, NamedSharding(local_mesh(), PartitionSpec(AXIS)))


def host_device():
  """The CPU beside the accelerators, or None where JAX was told to leave it alone.

  For small sums that must not wait in a busy accelerator's queue.
  """
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return None


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


def precision(name):
  """A context in which programs are compiled with a precision for products of float32 arrays.

  Args:
    name: of `PRECISIONS`. "default" is the chip's: TF32 on NVIDIA's, one pass of bfloat16 on a TPU,
      float32 on a CPU. "highest" is float32 everywhere, for several times the time.
  """
  return contextlib.nullcontext() if name == "default" else jax.default_matmul_precision(name)


@contextlib.contextmanager
def exact():
  """A context for comparing numbers: on the CPU, where there is one, and in float32 anywhere."""
  with jax.default_device(host_device()), precision("highest"):
    yield
