"""What fits a network: its parameters, thresholds, budgets and the names of its classes."""

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
  """Fields of a network in the form in which programs are compiled for them, hashable.

  Args:
    network: a `Network`. Its parameters are not looked at: pytrees hold anything for a while.

  Returns:
    {name: value} of those that may be given in another form.

  Raises:
    InputError: a field of another kind, or names of classes that are not as many as its classes.
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
  """A compute type by its name, of `DTYPES`; raises InputError for any other."""
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
  """The budgets of a network as a tuple of floats; raises InputError for what are none."""
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
  """The speed-ups of a network as a tuple; raises InputError for what are none of its."""
  listed = isinstance(speedups, (tuple, list)) and all(isinstance(s, Speed) for s in speedups)
  if not listed or len(speedups) not in (0, len(budgets) or 1):
    raise InputError(
      f"the speedups of a network are {shown(speedups)}: expected a `Speed` for each row of "
      "thresholds, as `Network.calibrate` gives them, or ()"
    )
  return tuple(speedups)


def check_not_traced(what):
  """Raises InputError inside of `jax.jit`, for what looks at values; it is called `what`."""
  if isinstance(jnp.zeros(()), jax.core.Tracer):
    raise InputError(
      f"{what} looks at values, which are not known inside of jax.jit: call it outside, and hand "
      "in what it returns"
    )


def check_params(arch, params, budgets=()):
  """Raises InputError unless parameters are those of an architecture, with thresholds or without.

  None and an empty dictionary pass: they stand for parameters that are still to come.

  Args:
    arch: the `Architecture`.
    params: nested dictionary of arrays, traced ones and shapes among them.
    budgets: those that there is a row of thresholds for, each.
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
      f"parameters do not fit the network: {'; '.join(wrong[:_NAMED])}{more}. Take those of a "
      "network of this architecture, or change `Network.params` with `jax.tree.map`"
    )


def thresholds_of(arch, thresholds, budgets=()):
  """Thresholds as a network holds them, and their budgets.

  Args:
    arch: the `Architecture`.
    thresholds: (stages,), or (budgets, stages); they may be traced, their values are then not
      looked at.
    budgets: shares of the dense GMACs that several rows are for.

  Returns:
    float32 array of JAX, and a tuple of floats.

  Raises:
    InputError: another shape, values that are no finite numbers, or budgets that are none.
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
    raise InputError(f"thresholds are {_what(thresholds)}, no numbers: {expected}")
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
  """Patches that each stage keeps of every image, as a network holds them.

  Args:
    arch: the `Architecture`.
    counts: (stages,) or (rows, stages) integers; () where they are not known.
    budgets: those of the network, each of which may have a row of its own.

  Returns:
    Tuple of rows, tuples of ints.

  Raises:
    InputError: none of these, or more patches than there are before a stage.
  """
  if counts is None or (type(counts) is tuple and not counts):
    return ()
  rows = f" or {len(budgets)} rows, one for each budget" if len(budgets) > 1 else ""
  expected = (
    f"expected whole numbers, one for each of its {arch.stages} stages{rows}, from 0 to the "
    f"{arch.patches} patches of an image, none above the one before"
  )
  array = _array(counts, "the counts of a network", expected)
  if array.shape == (0,):
    return ()
  table = array[None] if array.ndim == 1 else array
  known = (1, len(budgets)) if budgets else (1,)
  fits = array.dtype.kind in "iu" and table.ndim == 2 and table.shape[0] in known
  fits = fits and arch.stages and table.shape[1] == arch.stages
  table = np.minimum(table, 2**31).astype(np.int64) if fits else table  # differences of unsigned
  if not fits or table.min() < 0 or table.max() > arch.patches or (np.diff(table) > 0).any():
    said = shown(array.tolist())
    raise InputError(f"the counts of a network, patches that stages keep, are {said}: {expected}")
  return tuple(map(tuple, table.tolist()))


def counts_of(arch, kept):
  """Numbers of patches kept as an array; raises InputError for what are none.

  Args:
    arch: the `Architecture`.
    kept: (..., stages), or (..., 0) of images that ran dense.
  """
  expected = f"expected numbers of shape (…, {arch.stages}), as `Outputs.kept`"
  check_not_traced("What patches kept cost")
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
  """Names of classes as a tuple of texts, or None; raises InputError for anything else."""
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
  """Values as a NumPy array; raises InputError for rows of different lengths, or traced ones."""
  try:
    return np.asarray(values)
  except (TypeError, ValueError) as error:
    said = " ".join(str(error).split())[:100]
    raise InputError(f"{what} are no array ({said}): {expected}") from error


def _prunes_nowhere():
  return InputError(
    "thresholds for a network that prunes nowhere: prune_before is empty; set it to the blocks "
    "before which tokens may go"
  )


def _named(params):
  """[(name, leaf)], an empty place or None counting as a leaf."""
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
