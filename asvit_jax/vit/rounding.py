"""Rounds the matrices of blocks to the compute type once, instead of in every forward pass."""

import jax
import jax.numpy as jnp

_LAYERS = {"attn": ("qkv", "proj"), "mlp": ("fc1", "fc2")}


def rounded(params, dtype):
  """The parameters as the blocks compute with them.

  Layers round their matrices to the compute type whenever they run, so the results are the same.
  All other parameters, about one in fifty, stay float32: some are used as such.

  Args:
    params: nested dictionary of arrays or of their shapes, as `Network.params`; traced ones are
      returned as they are, as a compiled program rounds them anyway.
    dtype: compute type.

  Returns:
    A copy with the matrices of `attn` and `mlp` of all blocks in `dtype`.
  """
  dtype, blocks = jnp.dtype(dtype), (params or {}).get("blocks", {})
  if dtype == jnp.float32 or any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(blocks)):
    return params
  with jax.ensure_compile_time_eval():  # also where it is called inside `jit`
    return params | {"blocks": {i: _block(block, dtype) for i, block in blocks.items()}}


def _block(block, dtype):
  changed = {}
  for part, names in _LAYERS.items():
    layers = {name: block[part][name] for name in names}
    changed[part] = block[part] | {
      name: layer | {"kernel": _cast(layer["kernel"], dtype)} for name, layer in layers.items()
    }
  return block | changed


def _cast(matrix, dtype):
  of_shape = isinstance(matrix, jax.ShapeDtypeStruct)
  return matrix.update(dtype=dtype) if of_shape else matrix.astype(dtype)
