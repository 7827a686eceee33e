"""Data parallelism: the per-device step as one program over all local devices, by `jax.pmap`."""

import jax
import jax.numpy as jnp

from asvit_jax.training.step import AXIS


def parallelize(step):
  """A per-device step as a program over devices; the arguments have a leading device axis.

  The old state's memory is reused, so a state must not be read after it went in.
  """
  return jax.pmap(step, axis_name=AXIS, donate_argnums=0)


def replicate(tree):
  """A copy on every local device: leading axis of their number."""
  devices = jnp.arange(jax.local_device_count())
  # Under the step's axis name, so that the step finds its arguments as it leaves its results.
  copy = jax.pmap(lambda _, tree: tree, in_axes=(0, None), axis_name=AXIS)
  return copy(devices, tree)


def unreplicate(tree):
  """The first device's copy."""
  return jax.tree.map(lambda x: x[0], tree)


def shard(batch):
  """(b, …) arrays -> (devices, b / devices, …)."""
  devices = jax.local_device_count()
  return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
