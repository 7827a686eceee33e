"""Data parallelism: the per-device step as one program over all devices of all hosts.

`pmap` (the default) keeps a copy a device, with a leading axis of the local devices; `shard_map`
under `jit`, its successor, keeps global arrays on a mesh. Both run the same step with the same
result.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from asvit_jax.core.devices import AXIS, global_mesh, split_over_local


def parallelize(step, kind="pmap", devices=None):
  """A per-device step as a program over devices, for what `replicate` and `shard` return.

  The old state's memory is reused, so a state must not be read after it went in.

  Args:
    step: function of (state, teacher_params, batch), see `step.make_step`.
    kind: "pmap" or "shard_map".
    devices: to compile for where the program is not to run here; by default those of all hosts.
  """
  if kind == "pmap":
    return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=devices)
  everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
  # The step averages gradients itself, so the check, which would do it again, is off.
  mapped = jax.shard_map(
    step,
    mesh=global_mesh(devices),
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
  sharding = NamedSharding(global_mesh(), PartitionSpec())

  def copy(x):
    x = np.asarray(x)
    return jax.make_array_from_process_local_data(sharding, x, x.shape)

  return jax.tree.map(copy, tree)


def unreplicate(tree, kind="pmap"):
  """The first local device's copy, on the host.

  A slice on the device would be another program there, which waits for the step that is under way.
  """
  arrays = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))

  def copy(array, x):  # the next step reuses the device's memory
    return np.array(array).reshape(x.shape[1:] if kind == "pmap" else x.shape)

  return jax.tree.map(copy, arrays, tree)


def shard(batch, kind="pmap"):
  """This host's part of a batch, (b, …) arrays, over its devices, where it is then on its way."""
  if kind == "pmap":
    devices = jax.local_device_count()
    batch = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    return split_over_local(batch)
  sharding = NamedSharding(global_mesh(), PartitionSpec(AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def shapes(state, teacher_params, batch, kind="pmap"):
  """Of what `replicate` and `shard` return, for this host: the arguments of the program.

  Args:
    state: a `TrainState` of arrays or shapes.
    teacher_params: likewise.
    batch: of the global batch, (b, …) shapes.
    kind: as above.

  Returns:
    The three, as `jax.ShapeDtypeStruct`s.
  """
  if kind != "pmap":  # takes the arrays of all hosts
    return state, teacher_params, batch
  devices, hosts = jax.local_device_count(), jax.process_count()

  def split(x):
    images = x.shape[0] // hosts // devices
    return jax.ShapeDtypeStruct((devices, images, *x.shape[1:]), x.dtype)

  state, teacher_params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((devices, *x.shape), x.dtype), (state, teacher_params)
  )
  return state, teacher_params, jax.tree.map(split, batch)
