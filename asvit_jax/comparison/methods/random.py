"""Tokens at random: what any criterion has to beat."""

import jax
import jax.numpy as jnp

from asvit_jax.comparison.methods.fixed import FixedCount
from asvit_jax.sparsity.executions.fixed_count import fixed_count
from asvit_jax.sparsity.pruning import Pruning
from asvit_jax.sparsity.reductions import REDUCTIONS


class Random(FixedCount):
  """See `methods`: as many tokens as `drop_fixed`, chosen by a seed and the image's own pixels.

  So an image loses the same tokens again, in whatever batch it is.

  Args:
    seed: of the choice.
  """

  def __init__(self, seed=0):
    self.seed = seed

  def forward(self, model, images, counts):
    """See `FixedCount`."""
    score = _Draws(jax.random.key(self.seed), number_of(images))
    pruning = Pruning.of(model.arch, score, REDUCTIONS["drop"])
    return fixed_count(model, images, counts, pruning)


random = Random()


class _Draws:
  """A score, see `sparsity.scores`, that is drawn for every image and number of tokens."""

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
  """(b, height, width, 3) normalised images -> (b,) uint32 by what is in them.

  Pixels are rounded first, so that how a compiler orders the normalisation does not matter, and
  weighted by their place; integers may be summed in any order.
  """
  levels = jnp.round(64 * images.reshape(len(images), -1)).astype(jnp.int32).astype(jnp.uint32)
  places = jnp.arange(levels.shape[1], dtype=jnp.uint32)
  return (levels * (places * jnp.uint32(2654435761) | 1)).sum(axis=1)
