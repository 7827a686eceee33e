"""Checks of the fields of a network: parameters, thresholds, budgets and class names."""

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax import vit
from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line, shown
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.data.sources.classes import check_number
from asvit_jax.pacing.speeds import Speed
from asvit_jax.sparsity import complexity

DTYPES = ("float32", "bfloat16")
_NAMED = 3  # leaves that an error names


def fields_of(network):
  """The fields of a network in canonical, hashable form, for which programs are compiled.

  Args:
    network: a `Network`. Its parameters are not checked: JAX's tree functions put placeholders
      there.

  Returns:
    {name: value} of the fields that may be given in another form.

  Raises:
    InputError: a field of another type, or another number of class names than classes.
  """
  for name, kind, expected in (
    ("arch", vit.Architecture, "an Architecture"),
    ("preprocessing", Preprocessing, "a Preprocessing"),
    ("variant", str, "a text"),
  ):
    value = getattr(network, name)
    if not isinstance(value, kind):
      raise InputError(f"the {name} of a network is {shown(value)}: expected {expected}")
  classes = names_of(network.classes)
  check_number(classes, network.arch.classes, "the network")
  dtype, budgets = dtype_of(network.dtype), budgets_of(network.budgets)
  counts = fixed_counts_of(network.arch, network.counts, budgets)
  speedups = speedups_of(network.speedups, budgets)
  more = {"counts": counts, "speedups": speedups}
  return {"dtype": dtype, "classes": classes, "budgets": budgets} | more


def dtype_of(dtype):
  """The name of a compute type, one of `DTYPES`; raises InputError for any other."""
  if type(dtype) is str and dtype in DTYPES:
    return dtype
  try:
    name = jnp.dtype(dtype).name if dtype is not None else ""  # NumPy takes None for float64
  except (TypeError, ValueError):  # of a number with thousands of digits
    name = ""
  if name not in DTYPES:
    raise InputError(f"the dtype of a network is {shown(dtype)}: expected {' or '.join(DTYPES)}")
  return name


def budgets_of(budgets):
  """The budgets of a network as a tuple of floats; raises InputError for invalid budgets."""
  if budgets is None:
    return ()
  listed = hasattr(budgets, "__iter__") and getattr(budgets, "ndim", 1) == 1
  if not listed or isinstance(budgets, (str, bytes, dict)):
    raise InputError(
      f"the budgets of a network are {shown(budgets)}: expected a tuple of shares of the dense "
      "GMACs, one for each row of thresholds, or ()"
    )
  return complexity.shares(tuple(budgets), none_too=True)


def speedups_of(speedups, budgets):
  """The speed-ups of a network as a tuple; raises InputError unless there is one per budget."""
  listed = isinstance(speedups, (tuple, list)) and all(isinstance(s, Speed) for s in speedups)
  if not listed or len(speedups) not in (0, len(budgets) or 1):
    raise InputError(
      f"the speedups of a network are {shown(speedups)}: expected a `Speed` for each row of "
      "thresholds, as `Network.calibrate` gives them, or ()"
    )
  return tuple(speedups)


def check_not_traced(what):
  """Raises InputError inside `jax.jit`, for the function `what` that needs concrete values."""
  if isinstance(jnp.zeros(()), jax.core.Tracer):
    raise InputError(
      f"{what} needs concrete values, which are not known inside jax.jit: call it outside, and "
      "pass its result"
    )


def check_params(arch, params, budgets=()):
  """Raises InputError unless parameters fit an architecture, with or without thresholds.

  None and an empty dictionary pass: they are placeholders for parameters that are set later.

  Args:
    arch: the `Architecture`.
    params: nested dictionary of arrays; they may be traced, or shapes only.
    budgets: the budgets, each with its own row of thresholds.
  """
  if params is None or (isinstance(params, dict) and not params):
    return
  if not isinstance(params, dict):
    raise InputError(
      f"parameters are of type {type(params).__name__}: expected a nested dictionary of arrays, as "
      "`Network.params` is"
    )
  arch = arch if vit.prunes(params) else arch.dense
  if vit.prunes(params) and not arch.prune_before:
    raise _prunes_nowhere()
  wanted = {name: spec.shape for name, spec in leaves.named(vit.specs(arch, len(budgets)))}
  given = dict(_named(params))
  missing, unknown = wanted.keys() - given.keys(), given.keys() - wanted.keys()
  wrong = [
    f"{name} is {_what(given[name])}, expected floats of shape {shape}"
    for name, shape in wanted.items()
    if name in given and not _fits(given[name], shape)
  ]
  wrong += [f"{name} is missing" for name in sorted(missing)]
  wrong += [f"{on_a_line(name)} is not known" for name in sorted(unknown)]
  if wrong:
    more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
    raise InputError(
      f"parameters do not fit the network: {'; '.join(wrong[:_NAMED])}{more}. Use those of a "
      "network of this architecture, or change `Network.params` with `jax.tree.map`"
    )


def check_not_rounded(params):
  """Raises InputError for parameters as `for_execution` rounds them: digits would be lost."""
  rounded = [name for name, leaf in _named(params) if getattr(leaf, "dtype", None) == jnp.bfloat16]
  if rounded:
    raise InputError(
      f"parameters are rounded to bfloat16, {rounded[0]} for one, as `Network.for_execution` does: "
      "save the network that it was called for, or change `Network.params` to float32"
    )


def thresholds_of(arch, thresholds, budgets=()):
  """Thresholds and their budgets in canonical form.

  Args:
    arch: the `Architecture`.
    thresholds: (stages,), or (budgets, stages); the values of traced thresholds are not checked.
    budgets: shares of the dense GMACs, one for each of several rows.

  Returns:
    float32 JAX array, and a tuple of floats.

  Raises:
    InputError: another shape, values that are not finite numbers, or invalid budgets.
  """
  if not arch.prune_before:
    raise _prunes_nowhere()
  budgets = complexity.shares(budgets, none_too=True)
  shape = (len(budgets), arch.stages) if budgets else (arch.stages,)
  rows = "a row for each budget, one" if budgets else "one"
  expected = f"expected {rows} for each of its {arch.stages} stages, shape {shape}"
  if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(thresholds)):
    thresholds = jnp.asarray(thresholds)
  elif not isinstance(thresholds, jax.Array):
    thresholds = _array(thresholds, "thresholds", expected)
  if thresholds.dtype == bool or not _is_real(thresholds.dtype):
    raise InputError(f"thresholds are {_what(thresholds)}, not numbers: {expected}")
  if thresholds.shape != shape:
    what = f" for budgets {', '.join(f'{b:g}' for b in budgets)}" if budgets else ""
    more = "; several rows need their budgets" if thresholds.ndim == 2 and not budgets else ""
    raise InputError(f"thresholds of shape {thresholds.shape}{what}: {expected}{more}")
  if not isinstance(thresholds, jax.core.Tracer):
    with np.errstate(over="ignore"):
      values = np.asarray(thresholds).astype(np.float32)
    if not np.isfinite(values).all():
      raise InputError(f"thresholds {values.tolist()} are not all finite: {expected}")
  return jnp.asarray(thresholds, jnp.float32), budgets


def fixed_counts_of(arch, counts, budgets=()):
  """The numbers of patches that each stage keeps of every image, in canonical form.

  Args:
    arch: the `Architecture`.
    counts: (stages,) or (rows, stages) integers; () if unknown.
    budgets: the network's budgets, each of which may have its own row.

  Returns:
    Tuple of rows, each a tuple of ints.

  Raises:
    InputError: invalid counts, or more patches than there are before a stage.
  """
  if counts is None or (type(counts) is tuple and not counts):
    return ()
  rows = f" or {len(budgets)} rows, one for each budget" if len(budgets) > 1 else ""
  expected = (
    f"expected whole numbers, one for each of its {arch.stages} stages{rows}, from "
    f"{arch.least_patches} to the {arch.patches} patches of an image, none above the one before"
  )
  array = _array(counts, "the counts of a network", expected)
  if array.shape == (0,):
    return ()
  table = array[None] if array.ndim == 1 else array
  known = (1, len(budgets)) if budgets else (1,)
  fits = array.dtype.kind in "iu" and table.ndim == 2 and table.shape[0] in known
  fits = fits and arch.stages and table.shape[1] == arch.stages
  table = np.minimum(table, 2**31).astype(np.int64) if fits else table  # differences of unsigned
  if (
    not fits
    or table.min() < arch.least_patches
    or table.max() > arch.patches
    or (np.diff(table) > 0).any()
  ):
    said = shown(array.tolist())
    raise InputError(f"the counts of a network, patches that stages keep, are {said}: {expected}")
  return tuple(map(tuple, table.tolist()))


def counts_of(arch, kept):
  """Numbers of kept patches as an array; raises InputError for invalid numbers.

  Args:
    arch: the `Architecture`.
    kept: (..., stages), or (..., 0) for images that ran dense.
  """
  expected = f"expected numbers of shape (…, {arch.stages}), as `Outputs.kept`"
  check_not_traced("Network.gmacs")
  counts = _array(kept, "patches kept", expected)
  fits = counts.ndim > 0 and counts.shape[-1] in (0, arch.stages) and _is_real(counts.dtype)
  if not fits or not np.isfinite(counts).all():
    what = "not all finite" if fits else _what(counts)
    raise InputError(f"patches kept are {what}: {expected}")
  if counts.size and not (counts.min() >= 0 and counts.max() <= arch.patches):
    raise InputError(
      f"patches kept are {counts.min():g} to {counts.max():g}: {expected}, each from 0 to the "
      f"{arch.patches} patches of an image"
    )
  return counts


def names_of(classes):
  """Class names as a tuple of strings, or None; raises InputError for anything else."""
  if classes is None:
    return None
  if isinstance(classes, (str, bytes, dict, set)) or not hasattr(classes, "__iter__"):
    raise InputError(
      f"classes are of type {type(classes).__name__}: expected a list of their names, by label"
    )
  names = tuple(classes)
  wrong = next(((i, name) for i, name in enumerate(names) if not isinstance(name, str)), None)
  if wrong is not None:
    raise InputError(f"the name of class {wrong[0]} is {shown(wrong[1])}: expected a text")
  return names if all(type(name) is str for name in names) else tuple(map(str, names))


def _array(values, what, expected):
  """Values as a NumPy array; raises InputError for traced values or rows of different lengths."""
  try:
    return np.asarray(values)
  except (TypeError, ValueError) as error:
    said = " ".join(str(error).split())[:100]
    raise InputError(f"{what} are not an array ({said}): {expected}") from error


def _prunes_nowhere():
  return InputError(
    "thresholds for a network that prunes nowhere: prune_before is empty; set it to the blocks "
    "before which tokens are pruned"
  )


def _named(params):
  """[(name, leaf)]; None counts as a leaf."""
  tree = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda leaf: leaf is None)
  return [(leaves.name(path), leaf) for path, leaf in tree]


def _fits(leaf, shape):
  return getattr(leaf, "shape", None) == shape and jnp.issubdtype(leaf.dtype, jnp.floating)


def _is_real(dtype):
  return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _what(leaf):
  if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
    return f"{leaf.dtype} of shape {leaf.shape}"
  return f"of type {type(leaf).__name__}"
