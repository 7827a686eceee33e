"""Published weights in and out, strict both ways.

Files are safetensors with timm's parameter names. The thresholds of a pruned network stand beside
them under the names of the authors' code. Our modules are named as timm's, so the rules are few:

| ours | timm | layout |
|---|---|---|
| `….kernel` of a linear layer | `….weight` | (in, out) -> (out, in) |
| `….kernel` of a convolution | `….weight` | (height, width, in, out) -> (out, in, height, width) |
| `….scale` of a layer norm | `….weight` | as it is |
| `thresholds` (stages,) | `score_predictor.<stage>.keep_threshold` () | one scalar a stage |
| everything else | the same name | as it is |
"""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from asvit_jax import vit
from asvit_jax.errors import InputError

# Axes that turn our kernels into timm's weights, by number of axes.
_TO_TIMM = {2: (1, 0), 4: (3, 2, 0, 1)}
_THRESHOLD = "score_predictor.{}.keep_threshold"


def to_timm(params):
  """Parameters as {timm name: array in timm's layout}."""
  tensors = {}
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    value = np.asarray(value)
    if name == "thresholds":
      tensors |= {_THRESHOLD.format(i): np.asarray(x) for i, x in enumerate(value)}
    else:
      # safetensors writes the memory as it lies, so a transposed view must be made contiguous.
      tensors[_timm_name(name)] = np.ascontiguousarray(value.transpose(_axes(name, value.ndim)))
  return tensors


def from_timm(arch, tensors, source):
  """The parameters of `arch` from timm's tensors.

  Args:
    arch: an `Architecture`; with `prune_before`, the thresholds are read too.
    tensors: {timm name: array}. Every one must be used.
    source: where they come from, for the error.

  Returns:
    Nested dictionary of float32 arrays.

  Raises:
    InputError: names every missing, unexpected and misshapen tensor at once.
  """
  _, expected = vit.abstract(arch)
  paths, structure = jax.tree_util.tree_flatten_with_path(expected)
  problems, leaves, used = [], [], set()

  def take(name, shape):
    used.add(name)
    if name not in tensors:
      problems.append(f"missing {name}")
    elif tensors[name].shape != shape:
      problems.append(f"{name} has shape {tensors[name].shape}, expected {shape}")
    else:
      return tensors[name]
    return np.zeros(shape, np.float32)

  for path, spec in paths:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    if name == "thresholds":
      names = [_THRESHOLD.format(i) for i in range(spec.shape[0])]
      value = np.stack([take(n, ()) for n in names])
    else:
      axes = _axes(name, len(spec.shape))
      value = take(_timm_name(name), tuple(spec.shape[a] for a in axes))
      value = value.transpose(np.argsort(axes))
    leaves.append(jnp.asarray(value, jnp.float32))
  problems += [f"unexpected {name}" for name in tensors if name not in used]
  if problems:
    listed = "\n  ".join(problems[:20] + [f"… and {len(problems) - 20} more"][: len(problems) > 20])
    raise InputError(
      f"{source} does not fit this model ({len(problems)} problems); check model.variant, "
      f"num_classes, image_size and patch_size:\n  {listed}"
    )
  return jax.tree_util.tree_unflatten(structure, leaves)


def load(arch, path):
  """Reads a safetensors file.

  Args:
    arch: an `Architecture`.
    path: the file.

  Returns:
    Parameters, with thresholds exactly when the file has them (and `arch` prunes).

  Raises:
    InputError: no such file, not a safetensors file, or tensors that do not fit `arch`.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise InputError(f"weights {path}: no such file; expected a .safetensors file")
  try:
    tensors = safetensors.numpy.load_file(path)
  except (safetensors.SafetensorError, OSError, KeyError) as error:
    raise InputError(
      f"weights {path}: not a readable safetensors file ({error}); it may be truncated or of "
      "another format: fetch or export it again"
    ) from error
  pruned = _THRESHOLD.format(0) in tensors
  return from_timm(arch if pruned else arch.dense, tensors, f"weights {path}")


def save(path, params):
  """Writes parameters, thresholds included, as a safetensors file; all of it or nothing."""
  path = pathlib.Path(path)
  partial = path.with_name(path.name + ".partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written by us: safetensors itself would make the file readable by its owner alone.
    partial.write_bytes(safetensors.numpy.save(to_timm(params)))
    os.replace(partial, path)
  except OSError as error:
    raise InputError(f"cannot write weights to {path}: {error}") from error


def _timm_name(name):
  stem, _, leaf = name.rpartition(".")
  return f"{stem}.weight" if leaf in ("kernel", "scale") else name


def _axes(name, ndim):
  return _TO_TIMM[ndim] if name.endswith("kernel") else tuple(range(ndim))
