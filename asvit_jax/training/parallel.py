"""Data parallelism: the per-device step as one program over all devices of all hosts.

`pmap` (the default) keeps one copy of the state per device, with a leading axis of the local
devices; `shard_map` under `jit`, its successor, keeps global arrays on a mesh. Both run the same
step with the same result.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from asvit_jax.core.devices import AXIS, global_mesh, split_over_local


def parallelize(step, kind="pmap", devices=None):
  """Turns a per-device step into a program over devices.

  Its arguments come from `replicate` (state and teacher) and `shard` (batch). It donates the
  state's memory, so the old state must not be read after the call.

  Args:
    step: function of (state, teacher_params, batch), see `step.make_step`.
    kind: "pmap" or "shard_map".
    devices: devices to compile for, if the program will not run here; by default those of all
      hosts.

  Returns:
    Function of (state, teacher_params, batch).
  """
  if kind == "pmap":
    return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=devices)
  everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
  # The step averages the gradients itself; with `check_vma`, JAX would sum them once more.
  mapped = jax.shard_map(
    step,
    mesh=global_mesh(devices),
    in_specs=(everywhere, everywhere, split),
    out_specs=everywhere,
    check_vma=False,
  )
  return jax.jit(mapped, donate_argnums=0)


def replicate(tree, kind="pmap"):
  """Copies a tree of arrays to every device, in the layout of `kind`."""
  if not jax.tree.leaves(tree):  # no teacher; `pmap` fails on a program without outputs
    return tree
  if kind == "pmap":
    devices = jnp.arange(jax.local_device_count())
    # With the step's axis name, so that these arrays are sharded as the step's results are.
    copy = jax.pmap(lambda _, tree: tree, in_axes=(0, None), axis_name=AXIS)
    return copy(devices, tree)
  sharding = NamedSharding(global_mesh(), PartitionSpec())

  def copy(x):
    x = np.asarray(x)
    return jax.make_array_from_process_local_data(sharding, x, x.shape)

  return jax.tree.map(copy, tree)


def unreplicate(tree, kind="pmap"):
  """The first local device's copy, on the host.

  It is read as a whole shard: slicing on the device would run a program there, which would wait for
  the step in progress.
  """
  arrays = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))

  def copy(array, x):  # the next step reuses the device's memory
    return np.array(array).reshape(x.shape[1:] if kind == "pmap" else x.shape)

  return jax.tree.map(copy, arrays, tree)


def shard(batch, kind="pmap"):
  """Splits this host's part of a batch, (b, …) arrays, over its devices; starts the transfer."""
  if kind == "pmap":
    devices = jax.local_device_count()
    batch = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    return split_over_local(batch)
  sharding = NamedSharding(global_mesh(), PartitionSpec(AXIS))
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def shapes(state, teacher_params, batch, kind="pmap"):
  """The shapes of the program's arguments on this host, as `replicate` and `shard` return them.

  Args:
    state: a `TrainState` of arrays or shapes.
    teacher_params: parameters of the teacher, likewise.
    batch: (b, …) shapes of the global batch.
    kind: "pmap" or "shard_map".

  Returns:
    State, teacher parameters and batch, as `jax.ShapeDtypeStruct`s.
  """
  if kind != "pmap":  # shard_map takes global arrays
    return state, teacher_params, batch
  devices, hosts = jax.local_device_count(), jax.process_count()

  def split(x):
    images = x.shape[0] // hosts // devices
    return jax.ShapeDtypeStruct((devices, images, *x.shape[1:]), x.dtype)

  state, teacher_params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((devices, *x.shape), x.dtype), (state, teacher_params)
  )
  return state, teacher_params, jax.tree.map(split, batch)
