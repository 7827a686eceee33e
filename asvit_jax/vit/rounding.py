"""Rounds the matrices of blocks to the compute type once, instead of in every forward pass."""

import weakref

import jax
import jax.numpy as jnp

_LAYERS = {"attn": ("qkv", "proj"), "mlp": ("fc1", "fc2")}
# {(id of an array, type): the array, rounded}, as long as the array lives. Networks that differ in
# their thresholds, such as those `at` several budgets, share it.
_rounded = {}


def rounded(params, dtype):
  """The parameters as the blocks compute with them.

  Layers round their matrices to the compute type whenever they run, so the results are the same.
  All other parameters, about one in fifty, stay float32: some are used as such.

  Args:
    params: nested dictionary of arrays or of their shapes, as `Network.params`. Traced arrays stay
      as they are, as a compiled program rounds them anyway; and NumPy's, which may change.
    dtype: compute type.

  Returns:
    A copy with the matrices of `attn` and `mlp` of all blocks in `dtype`; parameters that are none
    of a network as they are: they are refused where it runs.
  """
  dtype = jnp.dtype(dtype)
  if dtype == jnp.float32:
    return params
  try:
    blocks = params["blocks"].items()
    with jax.ensure_compile_time_eval():  # also where it is called inside `jit`
      return params | {"blocks": {i: _block(block, dtype) for i, block in blocks}}
  except (KeyError, TypeError, AttributeError):
    return params


def _block(block, dtype):
  changed = {}
  for part, names in _LAYERS.items():
    layers = {name: block[part][name] for name in names}
    changed[part] = block[part] | {
      name: layer | {"kernel": _cast(layer["kernel"], dtype)} for name, layer in layers.items()
    }
  return block | changed


def _cast(matrix, dtype):
  if isinstance(matrix, jax.ShapeDtypeStruct):
    return matrix.update(dtype=dtype)
  if not isinstance(matrix, jax.Array) or isinstance(matrix, jax.core.Tracer):
    return matrix
  if matrix.dtype == dtype:
    return matrix
  key = id(matrix), dtype
  if key not in _rounded:
    _rounded[key] = matrix.astype(dtype)
    weakref.finalize(matrix, _rounded.pop, key, None)
  return _rounded[key]
