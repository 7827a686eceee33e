"""Stochastic depth (arXiv:1603.09382): in training, some images pass a residual branch by.

As timm has it: the rate grows linearly from 0 in the first block to that of the config in the last;
attention and MLP of a block are passed by independently; what runs is scaled up by 1 ÷ (1 - rate).
"""

import jax
import jax.numpy as jnp


def train_mode(model, rate, key, places):
  """Makes the blocks of a model drop their branches.

  Args:
    model: a `VisionTransformer`.
    rate: of the last block, in [0, 1).
    key: PRNG key of the step.
    places: (b,) int, the place of each image in the global batch, on which alone its draws rest: so
      they are the same on any number of devices, and in any parts of the batch.
  """
  last = max(len(model.blocks) - 1, 1)
  for i, block in enumerate(model.blocks):
    if rate and i:
      block.drop_path = _Dropping(rate * i / last, jax.random.fold_in(key, i), places)


class _Dropping:
  """(b, n, d) results of a branch, by its index in the block, with zeros where it is passed by."""

  def __init__(self, rate, key, places):
    self._rate, self._key, self._places = rate, key, places

  def __call__(self, y, branch):
    key = jax.random.fold_in(self._key, branch)
    keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(self._places)
    keep = 1.0 - self._rate
    stays = jax.vmap(lambda k: jax.random.bernoulli(k, jnp.float32(keep)))(keys)
    return jnp.where(stays[:, None, None], y / keep, jnp.zeros((), y.dtype))
