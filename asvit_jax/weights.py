"""Published weights in and out, strict both ways.

The parameter names are timm's for DeiT and the original ones for LV-ViT. The thresholds of a pruned
network stand beside them under the names of the authors' code. Our modules have the same names, so
one table serves both families; `weight_files` reads the formats.

| ours | timm | layout |
|---|---|---|
| `….kernel` of a linear layer | `….weight` | (in, out) -> (out, in) |
| `….kernel` of a convolution | `….weight` | (height, width, in, out) -> (out, in, height, width) |
| `….scale` of a norm | `….weight` | as it is |
| `….mean`, `….var` of a batch norm | `….running_mean`, `….running_var` | as they are |
| `thresholds` (stages,) | `score_predictor.<stage>.keep_threshold` () | one scalar a stage |
| everything else | the same name | as it is |
"""

import json
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from asvit_jax import vit, weight_files
from asvit_jax.errors import InputError

# Axes that turn our kernels into timm's weights, by number of axes.
_TO_TIMM = {2: (1, 0), 4: (3, 2, 0, 1)}
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "mean": "running_mean",
  "var": "running_var",
}
_THRESHOLD = weight_files.THRESHOLD


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
      f"{source} does not fit this model ({len(problems)} problems); check the variant, number of "
      "classes, image size and patch size (another image size or another number of classes is "
      f"taken when asked for: resize, new_head):\n  {listed}"
    )
  return jax.tree_util.tree_unflatten(structure, leaves)


def load(arch, source, resize=False, new_head=False):
  """Reads weights of any format that `weight_files` knows.

  Args:
    arch: an `Architecture`.
    source: a file, or `hf:OWNER/NAME` on the Hugging Face hub.
    resize: interpolate the position embedding of another image size to this one.
    new_head: start a new head where the number of classes differs.

  Returns:
    Parameters, with thresholds exactly when the source has them (and `arch` prunes).

  Raises:
    InputError: no such file, one that cannot be read, or tensors that do not fit `arch`.
  """
  tensors = weight_files.read(source)
  if _THRESHOLD.format(0) not in tensors:
    arch = arch.dense
  return from_timm(arch, adapt(arch, tensors, resize, new_head), f"weights {source}")


def adapt(arch, tensors, resize, new_head):
  """Tensors for `arch` from those of another image size or number of classes, as asked for.

  Args:
    arch: an `Architecture`.
    tensors: {timm name: array}.
    resize: as in `load`; bicubic, as timm does it.
    new_head: as in `load`.

  Returns:
    {timm name: array}.
  """
  tensors = dict(tensors)
  position = tensors.get("pos_embed")
  if resize and position is not None and position.shape[1] != 1 + arch.patches:
    tensors["pos_embed"] = _resized(position, arch)
  bias = tensors.get("head.bias")
  if new_head and bias is not None and bias.shape != (arch.classes,):
    heads = ("head", "aux_head")[: 1 + arch.aux_head]
    weight = 0.02 * np.random.default_rng(0).standard_normal((arch.classes, arch.width))
    for name in heads:
      tensors[f"{name}.weight"] = weight.astype(np.float32)
      tensors[f"{name}.bias"] = np.zeros(arch.classes, np.float32)
  return tensors


def _resized(position, arch):
  """(1, 1 + old patches, d) position embedding -> (1, 1 + patches, d)."""
  old, new = math.isqrt(position.shape[1] - 1), math.isqrt(arch.patches)
  if 1 + old * old != position.shape[1]:
    return position  # of no square image: the strict check names it
  width = position.shape[2]
  grid = position[:, 1:].reshape(old, old, width).astype(np.float32)
  grid = jax.image.resize(grid, (new, new, width), "cubic")
  return np.concatenate([position[:, :1], np.asarray(grid).reshape(1, -1, width)], axis=1)


def save(path, params, thresholds_as_metadata=False):
  """Writes parameters, thresholds included, as a safetensors file; all of it or nothing.

  Args:
    path: of the file.
    params: of a network.
    thresholds_as_metadata: in the file's header instead of beside the tensors, so that timm
      loads the file as it is. `load` reads them from either.

  Raises:
    InputError: the file cannot be written.
  """
  path = pathlib.Path(path)
  partial = path.with_name(path.name + ".partial")
  metadata = {"format": "pt"}  # timm and transformers look for it
  if thresholds_as_metadata and "thresholds" in params:
    metadata["thresholds"] = json.dumps(np.asarray(params["thresholds"]).tolist())
    params = vit.without_thresholds(params)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written by us: safetensors itself would make the file readable by its owner alone.
    partial.write_bytes(safetensors.numpy.save(to_timm(params), metadata))
    os.replace(partial, path)
  except OSError as error:
    raise InputError(f"cannot write weights to {path}: {error}") from error


def _timm_name(name):
  stem, _, leaf = name.rpartition(".")
  return f"{stem}.{_LEAVES[leaf]}" if leaf in _LEAVES else name


def _axes(name, ndim):
  return _TO_TIMM[ndim] if name.endswith("kernel") else tuple(range(ndim))
