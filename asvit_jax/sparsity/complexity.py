"""GMACs from token counts; no other module computes costs.

The count is the paper's: multiply-accumulates of the linear layers, the attention products and the
stem, for the patch tokens of the dense network, and for the kept tokens and the class token of a
pruned one. For LV-ViT it includes element-wise operations, as the authors' count does. If a score
or a reduction compares tokens with each other, the similarities count, too. All budgets and
reported GMACs use this count.

The number of *really* computed GMACs differs in two respects: the dense network has a class token,
too, and the last block needs only the class token's row, unless the prediction reads the patches.
`real_gmacs` counts these. An attention pooling counts in both.
"""

import contextlib
import numbers

import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import percent_hint
from asvit_jax.core.printable import shown
from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES, uses_similarity
from asvit_jax.vit.stems import STEMS


@usual
def gmacs(arch, kept):
  """GMACs of a pruned network, differentiable in the kept counts.

  Args:
    arch: an `Architecture` with s stages.
    kept: (..., s) number of patch tokens that each stage keeps.

  Returns:
    (...) float32 GMACs.
  """
  blocks = jnp.diff(jnp.array([0, *arch.prune_before, arch.depth]))  # blocks run by each stage
  tokens = _tokens(arch, kept)
  total = _stem_gmacs(arch) + (blocks * _block_gmacs(arch, tokens)).sum(axis=-1)
  total = total + _pool_gmacs(arch, tokens[..., -1] - arch.prefix_tokens)
  return total - _spared_gmacs(arch, tokens) + similarity_gmacs(arch, tokens)


@usual
def real_gmacs(arch, kept):
  """The GMACs really computed; see the module's description.

  Args:
    arch: an `Architecture` with s stages.
    kept: (..., s) NumPy array, number of patch tokens that each stage keeps; (..., 0) for images
      that ran dense.

  Returns:
    (...) GMACs.
  """
  if not kept.shape[-1]:
    blocks = np.full((*kept.shape[:-1], arch.depth), float(arch.prefix_tokens + arch.patches))
    return gmacs_of_blocks(arch, blocks, real=True)
  tokens = np.asarray(_tokens(arch, np.asarray(kept, np.float32)))
  stage = np.searchsorted(arch.prune_before, np.arange(arch.depth), side="right")  # of each block
  total = gmacs_of_blocks(arch, tokens[..., stage], real=True)
  return total - _spared_gmacs(arch, tokens) + similarity_gmacs(arch, tokens)


@usual
def gmacs_of_blocks(arch, tokens, real=False, in_mlp=None):
  """GMACs from the number of tokens in every block, for any method of choosing them.

  Args:
    arch: an `Architecture`.
    tokens: (..., depth) number of tokens in each block. It includes the tokens before the patches
      if they are to be counted.
    real: whether to count the last block only for the tokens that are read, if these are not all.
    in_mlp: (..., depth) number of tokens in each block's MLP, if some are removed between attention
      and MLP; by default all.

  Returns:
    (...) GMACs, without similarities.
  """
  blocks = _block_gmacs(arch, tokens)
  if in_mlp is not None:
    blocks = blocks - _mlp_gmacs(arch, tokens - in_mlp)
  total = _stem_gmacs(arch) + blocks.sum(axis=-1)
  last = (tokens if in_mlp is None else in_mlp)[..., -1]
  total = total + _pool_gmacs(arch, last - arch.prefix_tokens)
  if real and not arch.reads_patches:
    total = total - blocks[..., -1] + _read_rows_gmacs(arch, tokens[..., -1])
  return total


@usual
def similarity_gmacs(arch, tokens):
  """GMACs of comparing all pairs of tokens at each stage, by mean keys over the heads or whole.

  Args:
    arch: an `Architecture`.
    tokens: (..., 1 + stages) number of tokens before each stage, and after the last one.
  """
  parts = SCORES[arch.score], REDUCTIONS[arch.reduction]
  width = arch.width / arch.heads if any(part.uses_keys for part in parts) else 0
  width += arch.width if any(uses_similarity(part) for part in parts) else 0
  if not width:
    return 0.0
  compared = tokens[..., :-1] - max(arch.prefix_tokens - 1, 0)  # see `Pruning`
  return 1e-9 * width * (compared**2).sum(axis=-1)


def _spared_gmacs(arch, tokens):
  """GMACs saved by stages inside blocks, whose MLP runs only on the tokens left.

  Args:
    arch: an `Architecture`.
    tokens: (..., 1 + stages) number of tokens before each stage, and after the last one.
  """
  if not arch.prune_inside:
    return 0.0
  return _mlp_gmacs(arch, tokens[..., :-1] - tokens[..., 1:]).sum(axis=-1)


def dense_gmacs(arch):
  """GMACs of the dense network, a float."""
  blocks = _stem_gmacs(arch) + arch.depth * _block_gmacs(arch, arch.patches)
  return blocks + _pool_gmacs(arch, arch.patches)


def cost(arch, kept, real=False):
  """GMACs of images, dense or pruned.

  Args:
    arch: an `Architecture`.
    kept: (..., stages) number of patch tokens kept; (..., 0) for images that ran dense.
    real: whether to count what is really computed, `real_gmacs`, instead of the paper's count.

  Returns:
    (...) float64 NumPy array.
  """
  if real:
    return real_gmacs(arch, kept)
  if not kept.shape[-1]:
    return np.full(kept.shape[:-1], dense_gmacs(arch))
  return np.asarray(gmacs(arch, jnp.asarray(kept, jnp.float32)), np.float64)


def target_gmacs(arch, budget):
  """The GMACs of a budget, a share of the dense GMACs; None for None."""
  return None if budget is None else budget * dense_gmacs(arch)


def share(budget):
  """A budget as a float; raises InputError for anything but a number.

  Args:
    budget: a number of Python, NumPy or JAX, or an array of shape ().
  """
  number = None
  if not isinstance(budget, (bool, np.bool_, str, bytes, list, tuple)):
    with contextlib.suppress(OverflowError, TypeError, ValueError):  # of arrays of other libraries
      array = np.asarray(budget)
      if array.shape == () and (array.dtype.kind in "fiu" or isinstance(budget, numbers.Real)):
        number = float(budget)
  if number is None:
    raise InputError(
      f"budget {shown(budget)} is not a number: expected the share of the dense model's GMACs to "
      "keep, in (0, 1]"
    )
  return number


def shares(budgets, none_too=False):
  """One or several budgets as a tuple of distinct floats in (0, 1].

  Args:
    budgets: a number, see `share`, or a list or an array of numbers.
    none_too: whether None and () are allowed, too; they give ().

  Raises:
    InputError: anything else.
  """
  if none_too and (budgets is None or (isinstance(budgets, (list, tuple)) and not budgets)):
    return ()
  listed = isinstance(budgets, (list, tuple)) or getattr(budgets, "ndim", 0) == 1
  found = tuple(map(share, budgets)) if listed else (share(budgets),)
  for budget in found:
    check_share(budget)
  check_differ(found)
  return found


def check_differ(budgets):
  """Raises InputError if there is no budget, or one is given twice."""
  if not budgets or len(set(budgets)) < len(budgets):
    raise InputError(
      f"budgets {', '.join(f'{b:g}' for b in budgets)}: expected one or more different ones"
    )


def check_share(budget, name="budget"):
  """Raises InputError, naming `name`, unless a budget is a share of the dense GMACs, in (0, 1]."""
  if not 0 < budget <= 1:
    raise InputError(
      f"{name} {budget:g} is not in (0, 1]: it is the share of the dense model's GMACs to keep"
      f"{percent_hint(f'{budget:g}')}"
    )


def check_budget(arch, budget):
  """Raises InputError if an architecture cannot meet a budget, a share of the dense GMACs."""
  check_share(budget)
  if not arch.prune_before:
    raise InputError(f"budget {budget:g} for a network that prunes nowhere: prune_before is empty")
  fewest = _fewest_patches(arch)
  least = float(gmacs(arch, jnp.full(arch.stages, fewest, jnp.float32))) / dense_gmacs(arch)
  if budget < least:
    pruned, more = "every patch", ""
    if fewest:
      pruned = f"all but {fewest} of {arch.patches} patches"
      if arch.count_multiple > 1:
        more = f", or set model.count_multiple below {arch.count_multiple}"
    raise InputError(
      f"budget {budget:g} cannot be met: with {pruned} pruned from block {arch.prune_before[0]} "
      f"on, {least:.3f} of the dense GMACs remain; give a larger budget, or prune earlier{more}"
    )


def _fewest_patches(arch):
  """Patches kept when no score exceeds a threshold: the least, rounded up by `count_multiple`."""
  multiple, prefix = arch.count_multiple, arch.prefix_tokens
  least = prefix + arch.least_patches
  return min(-(-least // multiple) * multiple - prefix, arch.patches)


def check_budgets(arch, budgets):
  """Raises InputError if one of several budgets cannot be met, or is given twice."""
  for budget in budgets:
    check_budget(arch, budget)
  check_differ(budgets)


def uniform_ratio(arch, gmacs):
  """The keep ratio r with the given GMACs, if each stage keeps the share r^e of the patches.

  The exponents e are the `Architecture.stage_exponents`, by default 1, 2, 3, the geometric schedule
  of DynamicViT (arXiv:2106.02034).
  """
  low, high = 0.0, 1.0
  for _ in range(30):
    middle = (low + high) / 2
    low, high = (middle, high) if uniform_gmacs(arch, middle) < gmacs else (low, middle)
  return (low + high) / 2


def uniform_gmacs(arch, ratio):
  """GMACs if every image keeps the same share of patches, by the schedule of `uniform_ratio`."""
  kept = arch.patches * ratio ** np.array(arch.stage_exponents)
  return float(gmacs(arch, jnp.asarray(kept, jnp.float32)))


def _tokens(arch, kept):
  """(..., s) patches kept -> (..., 1 + s) tokens before each stage, and after the last one."""
  before = jnp.full((*kept.shape[:-1], 1), float(arch.patches), jnp.float32)
  return jnp.concatenate([before, kept], axis=-1) + arch.prefix_tokens


def _read_rows_gmacs(arch, n):
  """GMACs of a block with n keys and values that computes only the tokens read (the queries)."""
  d, m, read = arch.width, arch.hidden, arch.read_tokens
  each = 2 * d * d + 2 * d * m  # query, output projection, both layers of the MLP
  return 1e-9 * (read * each + 2 * d * d * n + read * 2 * d * n)


def _block_gmacs(arch, n):
  d, m = arch.width, arch.hidden
  linear = 4 * d * d + 2 * d * m  # q, k, v, output projection; both layers of the MLP
  if not arch.count_elementwise:
    return 1e-9 * (linear * n + 2 * d * n * n)
  softmax = 6 * arch.heads  # 5 for a logit, 1 for its scale
  pointwise = 14 * d + 9 * m  # twice layer norm 5, residual 1 and bias 1; GELU 8 and bias 1
  return 1e-9 * ((linear + pointwise) * n + (2 * d + softmax) * n * n)


def _mlp_gmacs(arch, n):
  """The part of `_block_gmacs` after attention."""
  d, m = arch.width, arch.hidden
  pointwise = 7 * d + 9 * m if arch.count_elementwise else 0  # layer norm, residual, bias; GELU
  return 1e-9 * (2 * d * m + pointwise) * n


def _pool_gmacs(arch, n):
  """GMACs of pooling n tokens by attention: keys and values of all, and one query with its MLP."""
  if arch.pool != "map":
    return 0.0
  d, m = arch.width, arch.hidden
  return 1e-9 * (2 * d * d * n + 2 * d * n + 2 * d * d + 2 * d * m)


def _stem_gmacs(arch):
  return 1e-9 * STEMS[arch.stem].macs(arch)
