"""Converts parameters to timm's names and layout and back, strict both ways.

The parameter names are timm's for DeiT and the original ones for LV-ViT. The thresholds of a pruned
network are stored beside them, under the names of the authors' code. The modules of this package
have the same names, so one table serves both families.

| this package | timm | layout |
|---|---|---|
| `….kernel` of a linear layer | `….weight` | (in, out) -> (out, in) |
| `….kernel` of a convolution | `….weight` | (height, width, in, out) -> (out, in, height, width) |
| `….scale` of a norm | `….weight` | unchanged |
| `….mean`, `….var` of a batch norm | `….running_mean`, `….running_var` | unchanged |
| `thresholds` (stages,) | `score_predictor.<stage>.keep_threshold` () | one scalar per stage |
| `thresholds` (budgets, stages) | the same (budgets,) | for several budgets |
| everything else | the same name | unchanged |
"""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax import vit
from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError
from asvit_jax.weights.checks import MOST_BLOCKS

# {number of axes: transposition from our kernels to timm's weights}.
_TO_TIMM = {2: (1, 0), 4: (3, 2, 0, 1)}
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "mean": "running_mean",
  "var": "running_var",
}
_MISSHAPEN, _NAMED = 3, 4  # lines in an error message: of shapes, of names
_BLOCK = re.compile(r"blocks\.([0-9]{1,6})\.")
# The authors' name for a stage's threshold.
THRESHOLD = "score_predictor.{}.keep_threshold"


def to_timm(params):
  """Parameters as {timm name: array in timm's layout}."""
  tensors = {}
  for name, value in leaves.named(params):
    value = np.asarray(value)
    if name == "thresholds":
      columns = enumerate(np.moveaxis(value, -1, 0))
      tensors |= {THRESHOLD.format(i): np.array(x) for i, x in columns}
    else:
      # safetensors writes memory as it is, so a transposed view must be made contiguous.
      tensors[_timm_name(name)] = np.ascontiguousarray(value.transpose(_axes(name, value.ndim)))
  return tensors


def from_timm(arch, tensors, source, budgets=0, family=""):
  """The parameters of `arch` from timm's tensors.

  Args:
    arch: an `Architecture`; with `prune_before`, the thresholds are read too.
    tensors: {timm name: array}. Every one must be used.
    source: origin of the tensors, for the error.
    budgets: number of rows of thresholds, one per budget; 0 for a single set of them.
    family: family of the file's tensor names, for the error; "" if unknown.

  Returns:
    Nested dictionary of float32 arrays.

  Raises:
    InputError: missing, unexpected or misshapen tensors, as for `check_fits`.
  """
  check_fits(arch, tensors, source, budgets, family)
  expected = vit.specs(arch, budgets)
  values = []
  for name, spec in leaves.named(expected):
    if name == "thresholds":
      value = np.stack([tensors[THRESHOLD.format(i)] for i in range(arch.stages)], axis=-1)
    else:
      value = tensors[_timm_name(name)]
      value = value.transpose(np.argsort(_axes(name, len(spec.shape))))
    values.append(jnp.asarray(value, jnp.float32))
  return jax.tree.unflatten(jax.tree.structure(expected), values)


def check_fits(arch, tensors, source, budgets=0, family="", but=()):
  """Checks names and shapes of tensors against an architecture.

  It allocates no memory, as a file may claim an architecture of any size.

  Args:
    arch: as for `from_timm`.
    tensors: as for `from_timm`.
    source: as for `from_timm`.
    budgets: as for `from_timm`.
    family: as for `from_timm`.
    but: prefixes of the names of tensors that may be missing or misshapen.

  Raises:
    InputError: missing, unexpected or misshapen tensors; the message counts them, says which
      dimensions differ, and names the first few.
  """
  blocks = len(numbers_of_blocks(tensors))
  if arch.depth > max(blocks, MOST_BLOCKS):
    raise InputError(
      f"{source} does not fit this model: it has {blocks} blocks, not {arch.depth:,}; choose the "
      "matching model.variant, or set model.depth"
    )
  expected = {}
  for name, spec in leaves.named(vit.specs(arch, budgets)):
    if name == "thresholds":
      expected |= {THRESHOLD.format(i): spec.shape[:-1] for i in range(arch.stages)}
    else:
      axes = _axes(name, len(spec.shape))
      expected[_timm_name(name)] = tuple(spec.shape[a] for a in axes)
  but = tuple(but)
  expected = {name: shape for name, shape in expected.items() if not name.startswith(but)}
  tensors = {name: value for name, value in tensors.items() if not name.startswith(but)}
  missing = [name for name in expected if name not in tensors]
  unexpected = [name for name in tensors if name not in expected]
  misshapen = [
    f"{name} has shape {np.shape(tensors[name])}, expected {shape}"
    for name, shape in expected.items()
    if name in tensors and np.shape(tensors[name]) != shape
  ]
  counts = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
  counts = {kind: len(names) for kind, names in counts.items() if names}
  if counts:
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    looks = f"its names look like those of {family}" if family else "its names are unknown"
    lines = misshapen[:_MISSHAPEN] + _side_by_side(missing, unexpected)
    raise InputError(
      f"{source} does not fit this model ({sum(counts.values())} problems: {listed}"
      f"{_differences(tensors, expected)}); {looks}; check the variant, number of classes, image "
      "size and patch size (init_resize allows another image size, init_new_head another number of "
      "classes or no head):\n  " + "\n  ".join(lines)
    )


def numbers_of_blocks(names):
  """The set of block numbers in timm's names; numbers of more than six digits are ignored."""
  return {int(match[1]) for name in names if (match := _BLOCK.match(name))}


def _differences(tensors, expected):
  """The dimensions that tensors show to differ: "; width 384, not 192"; "" if there are none.

  Args:
    tensors: {timm name: array}.
    expected: {timm name: shape}.
  """
  found = []
  theirs, ours = (len(numbers_of_blocks(names)) for names in (tensors, expected))
  if theirs not in (0, ours):
    found.append(f"{theirs} blocks, not {ours}")
  for what, name, axis in (
    ("width", "cls_token", -1),
    ("patch size", "patch_embed.proj.weight", -1),
    ("classes:", "head.bias", 0),
  ):
    shape = np.shape(tensors.get(name, ()))
    if name in expected and len(shape) == len(expected[name]):
      their, our = shape[axis], expected[name][axis]
      found += [] if their == our else [f"{what} {their:,}, not {our:,}"]
  return "".join(f"; {difference}" for difference in found)


def _side_by_side(missing, unexpected):
  """Lines with a missing and an unexpected name each: often one tensor under two names."""
  pairs = list(itertools.zip_longest(missing, unexpected))
  lines = [(f"missing {a}" if a else "", f"unexpected {b}" if b else "") for a, b in pairs[:_NAMED]]
  width = max((len(left) for left, _ in lines), default=0)
  lines = [f"{left:{width}}   {right}".rstrip() if left else right for left, right in lines]
  return lines + [f"… and {len(pairs) - _NAMED} more such lines"][: len(pairs) > _NAMED]


def _timm_name(name):
  stem, _, leaf = name.rpartition(".")
  return f"{stem}.{_LEAVES[leaf]}" if leaf in _LEAVES else name


def _axes(name, ndim):
  return _TO_TIMM[ndim] if name.endswith("kernel") else tuple(range(ndim))
