"""Methods that keep the same number of tokens in every image, by score or at random."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import complexity, schedule
from asvit_jax.sparsity.executions.fixed_count import fixed_count
from asvit_jax.sparsity.executions.grouped import CACHED_PACKED, in_groups
from asvit_jax.sparsity.pruning import Pruning
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import ClassAttention

# Keep ratios that `solve` chooses from: a step is less than one of 196 tokens at a third power.
_RATIOS = np.linspace(1.0, 0.0, 2001)


class FixedCount:
  """The base of all methods with fixed counts; see `methods`.

  It keeps the tokens of highest score; score, stages, schedule and reduction are the
  architecture's.
  """

  adaptive = False

  def architecture(self, paper, merging):
    """The `Architecture` of the paper."""
    del merging
    return paper

  def counts(self, arch, ratio):
    """Patches that each stage keeps if a stage of weight 1 keeps the share `ratio`, a tuple."""
    return schedule.uniform_counts(arch, ratio)

  def choices(self, arch):
    """All counts that `solve` may choose, a list of tuples; the first removes no token."""
    return list(dict.fromkeys(self.counts(arch, float(ratio)) for ratio in _RATIOS))

  def solve(self, arch, budget):
    """The counts whose cost is nearest to a budget.

    Args:
      arch: an `Architecture`.
      budget: share of the dense GMACs.

    Returns:
      A tuple, one of `choices`.

    Raises:
      InputError: the budget is no share, or less than the least counts cost.
    """
    complexity.check_share(budget)
    choices = self.choices(schedule.with_stage_weights(arch, budget))
    shares = self.cost(arch, np.array(choices)) / complexity.dense_gmacs(arch)
    if budget < shares.min():
      raise InputError(
        f"budget {budget:g} cannot be met by {type(self).__name__}: the least is "
        f"{shares.min():.3f} of the dense GMACs; raise the budget, or leave this method out"
      )
    return choices[int(np.argmin(abs(shares - budget)))]

  def cost(self, arch, counts, real=False):
    """(..., stages) patches kept -> (...) GMACs, by the paper's count or the real ones."""
    return complexity.cost(arch, np.asarray(counts, np.float64), real)

  def forward(self, model, images, counts):
    """`Outputs` of normalised images (b, s, s, 3), the whole batch at once."""
    return fixed_count(model, images, counts)

  def execution(self, counts):
    """The function for inference: `forward`, on as many images at a time as suit the cache."""
    return in_groups(functools.partial(self.forward, counts=counts), CACHED_PACKED)

  def training(self, counts):
    """The function for fine-tuning: `forward`."""
    return functools.partial(self.forward, counts=counts)


class DropFixed(FixedCount):
  """`drop` with a fixed count in place of thresholds; also called `top_k`; see `methods`.

  The difference between the two is what adaptivity is worth for dropping. The count of a stage is
  the mean number of tokens that the thresholds of `drop` are calibrated to. So this is the
  geometric schedule of EViT and DynamicViT with the score of Adaptive Sparse ViT
  (arXiv:2209.13802).
  """


class MergeFixed(FixedCount):
  """`merge` with a fixed count in place of thresholds; see `methods`.

  The difference between the two is what adaptivity is worth for merging: score, stages, schedule
  and reduction are the same.
  """

  def architecture(self, paper, merging):
    """The `Architecture` of the recipes."""
    del paper
    return merging


class Random(FixedCount):
  """Keeps as many tokens as `drop_fixed`, chosen at random: the least that a score must beat.

  The choice depends on a seed and on the pixels of the image, so an image always loses the same
  tokens, whatever its batch. A method, see `methods`.

  Args:
    seed: seed of the choice.
  """

  def __init__(self, seed=0):
    self.seed = seed

  def forward(self, model, images, counts):
    """`Outputs` of normalised images (b, s, s, 3), the whole batch at once."""
    score = _RandomScore(jax.random.key(self.seed), number_of(images))
    pruning = Pruning.of(model.arch, score, REDUCTIONS["drop"])
    return fixed_count(model, images, counts, pruning)


drop_fixed = DropFixed()
merge_fixed = MergeFixed()
random = Random()


class _RandomScore:
  """A score, see `sparsity.scores`, drawn anew for every image and number of tokens."""

  uses_keys = False

  def __init__(self, key, numbers):
    self._keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)

  def gather(self, class_attention, context):
    return class_attention[..., 0]

  def __call__(self, gathered, keys, present, exponents):
    n = gathered.shape[1]
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, n), (n,), jnp.float32))(
      self._keys
    )


def number_of(images):
  """A number that is computed from the pixels of each image.

  Pixels are rounded first, so that the order in which a compiler normalises them does not matter,
  and weighted by their position. The sum is of integers, which is exact in any order.

  Args:
    images: (b, height, width, 3) normalised images.

  Returns:
    (b,) uint32.
  """
  levels = jnp.round(64 * images.reshape(len(images), -1)).astype(jnp.int32).astype(jnp.uint32)
  places = jnp.arange(levels.shape[1], dtype=jnp.uint32)
  return (levels * (places * jnp.uint32(2654435761) | 1)).sum(axis=1)


class MeanAttention(ClassAttention):
  """The class token's attention, averaged over the heads; a score, see `sparsity.scores`.

  EViT (arXiv:2202.07800) scores tokens by it, and so does our DynamicViT.
  """

  def gather(self, class_attention, context):
    """(..., h) attention -> (...)."""
    del context
    return class_attention.mean(axis=-1)


mean_attention = MeanAttention()


def take(tokens, index):
  """Gathers (b, m) rows from (b, n, ...) tokens -> (b, m, ...)."""
  return jnp.take_along_axis(tokens, index.reshape(*index.shape, *[1] * (tokens.ndim - 2)), axis=1)
