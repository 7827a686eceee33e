"""Data parallelism: the per-device step as one program over all devices of all hosts.

`pmap` (the default) keeps a copy a device, with a leading axis of the local devices; `shard_map`
under `jit`, its successor, keeps global arrays on a mesh. Both run the same step with the same
result.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from asvit_jax.training.step import AXIS


def parallelize(step, kind="pmap"):
  """A per-device step as a program over devices, for what `replicate` and `shard` return.

  The old state's memory is reused, so a state must not be read after it went in.
  """
  if kind == "pmap":
    return jax.pmap(step, axis_name=AXIS, donate_argnums=0)
  everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
  # The step averages gradients itself, so the check, which would do it again, is off.
  mapped = jax.shard_map(
    step,
    mesh=_mesh(),
    in_specs=(everywhere, everywhere, split),
    out_specs=everywhere,
    check_vma=False,
  )
  return jax.jit(mapped, donate_argnums=0)


def replicate(tree, kind="pmap"):
  """A copy on every device."""
  if not jax.tree.leaves(tree):  # no teacher; a program without outputs would fail
    return tree
  if kind == "pmap":
    devices = jnp.arange(jax.local_device_count())
    # Under the step's axis name, so that the step finds its arguments as it leaves its results.
    copy = jax.pmap(lambda _, tree: tree, in_axes=(0, None), axis_name=AXIS)
    return copy(devices, tree)
  sharding = NamedSharding(_mesh(), PartitionSpec())

  def copy(x):
    x = np.asarray(x)
    return jax.make_array_from_process_local_data(sharding, x, x.shape)

  return jax.tree.map(copy, tree)


def unreplicate(tree, kind="pmap"):
  """The first local device's copy."""
  if kind == "pmap":  # not x[0], which is on the first host only
    return jax.tree.map(lambda x: x.addressable_data(0).reshape(x.shape[1:]), tree)
  return jax.tree.map(lambda x: x.addressable_data(0), tree)


def shard(batch, kind="pmap"):
  """This host's part of a batch, (b, …) arrays, over its devices."""
  if kind == "pmap":
    devices = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
  sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def _mesh():
  return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
