"""GMACs from token counts: the one place that knows what a network costs.

Multiply-accumulates of the linear layers, the attention products and the stem, as the paper counts
them: the dense network by its patch tokens, a pruned one by its kept tokens and the class token.
For LV-ViT the authors also count element-wise work. Where a score or a reduction compares tokens
with each other, its similarities count too. Budgets, shares and tables mean this count.

What is *really* computed differs in two things: the dense network has a class token, too, and of
the last block nothing but the class token's row is needed. `real_gmacs` counts that.
"""

import contextlib
import numbers

import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES
from asvit_jax.vit.stems import STEMS


@usual
def gmacs(arch, kept):
  """GMACs of a pruned network, differentiable in the kept counts.

  Args:
    arch: an `Architecture` with s stages.
    kept: (..., s) patch tokens that each stage keeps.

  Returns:
    (...) float32 GMACs.
  """
  blocks = jnp.diff(jnp.array([0, *arch.prune_before, arch.depth]))  # blocks run by each stage
  tokens = _tokens(arch, kept)
  total = _stem_gmacs(arch) + (blocks * _block_gmacs(arch, tokens)).sum(axis=-1)
  return total - _spared_gmacs(arch, tokens) + similarity_gmacs(arch, tokens)


@usual
def real_gmacs(arch, kept):
  """GMACs that a network really computes, as `cost` counts images; see above."""
  if not kept.shape[-1]:
    blocks = np.full((*kept.shape[:-1], arch.depth), float(arch.prefix_tokens + arch.patches))
    return gmacs_of_blocks(arch, blocks, real=True)
  tokens = np.asarray(_tokens(arch, np.asarray(kept, np.float32)))
  stage = np.searchsorted(arch.prune_before, np.arange(arch.depth), side="right")  # of each block
  total = gmacs_of_blocks(arch, tokens[..., stage], real=True)
  return total - _spared_gmacs(arch, tokens) + similarity_gmacs(arch, tokens)


@usual
def gmacs_of_blocks(arch, tokens, real=False, in_mlp=None):
  """GMACs from the number of tokens in every block, whatever chose them.

  Args:
    arch: an `Architecture`.
    tokens: (..., depth) of them, those before the patches included where they are to count.
    real: counts of the last block what the tokens need that are read, where no more is computed.
    in_mlp: (..., depth) of those that are left in a block's MLP, where some go between it and
      attention; by default all.

  Returns:
    (...) GMACs; similarities are not counted.
  """
  blocks = _block_gmacs(arch, tokens)
  if in_mlp is not None:
    blocks = blocks - _mlp_gmacs(arch, tokens - in_mlp)
  total = _stem_gmacs(arch) + blocks.sum(axis=-1)
  if real and not arch.aux_head:
    total = total - blocks[..., -1] + _read_rows_gmacs(arch, tokens[..., -1])
  return total


@usual
def similarity_gmacs(arch, tokens):
  """GMACs of comparing all pairs of tokens at each stage, by keys averaged over the heads or whole.

  Args:
    arch: an `Architecture`.
    tokens: (..., 1 + stages), in the blocks before each stage and after the last.
  """
  parts = SCORES[arch.score], REDUCTIONS[arch.reduction]
  width = arch.width / arch.heads if any(part.uses_keys for part in parts) else 0
  width += arch.width if any(getattr(part, "uses_similarity", False) for part in parts) else 0
  if not width:
    return 0.0
  compared = tokens[..., :-1] - (arch.prefix_tokens - 1)  # see `Attending`
  return 1e-9 * width * (compared**2).sum(axis=-1)


def _spared_gmacs(arch, tokens):
  """GMACs that stages inside of blocks spare: there, the MLP runs on the tokens that are left.

  Args:
    arch: an `Architecture`.
    tokens: (..., 1 + stages), in the blocks before each stage and after the last.
  """
  if not arch.prune_inside:
    return 0.0
  return _mlp_gmacs(arch, tokens[..., :-1] - tokens[..., 1:]).sum(axis=-1)


def dense_gmacs(arch):
  """GMACs of the dense network, a float."""
  return _stem_gmacs(arch) + arch.depth * _block_gmacs(arch, arch.patches)


def cost(arch, kept, real=False):
  """GMACs of images that ran.

  Args:
    arch: an `Architecture`.
    kept: (..., stages) patch tokens kept; (..., 0) of images that ran dense.
    real: what is computed, `real_gmacs`, instead of the paper's count.

  Returns:
    (...) float64 NumPy array.
  """
  if real:
    return real_gmacs(arch, kept)
  if not kept.shape[-1]:
    return np.full(kept.shape[:-1], dense_gmacs(arch))
  return np.asarray(gmacs(arch, jnp.asarray(kept, jnp.float32)), np.float64)


def target_gmacs(arch, budget):
  """GMACs that a budget, a share of the dense ones, allows; None for None."""
  return None if budget is None else budget * dense_gmacs(arch)


def share(budget):
  """A budget as a float; raises InputError for what is no number.

  Args:
    budget: a number of Python, NumPy or JAX, or an array of one, ().
  """
  number = None
  if not isinstance(budget, (bool, np.bool_, str, bytes, list, tuple)):
    with contextlib.suppress(OverflowError, TypeError, ValueError):  # of arrays of other libraries
      array = np.asarray(budget)
      if array.shape == () and (array.dtype.kind in "fiu" or isinstance(budget, numbers.Real)):
        number = float(budget)
  if number is None:
    raise InputError(
      f"budget {shown(budget)} is no number: expected the share of the dense model's GMACs to "
      "keep, in (0, 1]"
    )
  return number


def shares(budgets, none_too=False):
  """One budget or several as a tuple of floats, each in (0, 1], no two equal.

  Args:
    budgets: a number, see `share`, or a list or an array of them.
    none_too: whether there may be none, None or ().

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
  """Raises InputError where of several budgets one is given twice, or there is none."""
  if not budgets or len(set(budgets)) < len(budgets):
    raise InputError(
      f"budgets {', '.join(f'{b:g}' for b in budgets)}: expected one or more, each another"
    )


def check_share(budget):
  """Raises InputError where a budget is no share of the dense GMACs, whatever has to meet it."""
  if not 0 < budget <= 1:
    raise InputError(
      f"budget {budget:g} is not in (0, 1]: it is the share of the dense model's GMACs to keep"
    )


def check_budget(arch, budget):
  """Raises InputError where a budget, a share of the dense GMACs, cannot be met."""
  check_share(budget)
  if not arch.prune_before:
    raise InputError(f"budget {budget:g} for a network that prunes nowhere: prune_before is empty")
  fewest = _fewest_patches(arch)
  least = float(gmacs(arch, jnp.full(arch.stages, fewest, jnp.float32))) / dense_gmacs(arch)
  if budget < least:
    pruned, more = "every patch", ""
    if fewest:
      pruned = f"all but {fewest} of {arch.patches} patches"
      more = f", or set model.count_multiple below {arch.count_multiple}"
    raise InputError(
      f"budget {budget:g} cannot be met: with {pruned} pruned from block {arch.prune_before[0]} "
      f"on, {least:.3f} of the dense GMACs remain; ask for more, or prune earlier{more}"
    )


def _fewest_patches(arch):
  """Patches that an image keeps where no score exceeds a threshold: `count_multiple` rounds up."""
  multiple, prefix = arch.count_multiple, arch.prefix_tokens
  return min(-(-prefix // multiple) * multiple - prefix, arch.patches)


def check_budgets(arch, budgets):
  """Raises InputError where one of several budgets cannot be met, or one is given twice."""
  for budget in budgets:
    check_budget(arch, budget)
  check_differ(budgets)


def uniform_ratio(arch, gmacs):
  """The ratio r that costs so much, if of the patches r^e is left after a stage.

  e are the `Architecture.stage_exponents`; by default 1, 2, 3, the geometric schedule of DynamicViT
  (arXiv:2106.02034).
  """
  low, high = 0.0, 1.0
  for _ in range(30):
    middle = (low + high) / 2
    low, high = (middle, high) if uniform_gmacs(arch, middle) < gmacs else (low, middle)
  return (low + high) / 2


def uniform_gmacs(arch, ratio):
  """GMACs if every image kept the same share, by the schedule of `uniform_ratio`."""
  kept = arch.patches * ratio ** np.array(arch.stage_exponents)
  return float(gmacs(arch, jnp.asarray(kept, jnp.float32)))


def _tokens(arch, kept):
  """(..., s) patches kept -> (..., 1 + s) tokens in the blocks before each stage and the last."""
  before = jnp.full((*kept.shape[:-1], 1), float(arch.patches), jnp.float32)
  return jnp.concatenate([before, kept], axis=-1) + arch.prefix_tokens


def _read_rows_gmacs(arch, n):
  """GMACs of a block whose keys and values are n tokens' and the rest those that are read."""
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
  """The part of `_block_gmacs` that comes after attention."""
  d, m = arch.width, arch.hidden
  pointwise = 7 * d + 9 * m if arch.count_elementwise else 0  # layer norm, residual, bias; GELU
  return 1e-9 * (2 * d * m + pointwise) * n


def _stem_gmacs(arch):
  return 1e-9 * STEMS[arch.stem].macs(arch)
