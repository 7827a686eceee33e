"""Stochastic depth (arXiv:1603.09382): in training, some images skip a residual branch.

As in timm: the rate grows linearly from 0 in the first block to the config's rate in the last;
attention and MLP of a block are dropped independently; a branch that runs is scaled by 1 ÷ (1 -
rate).
"""

import jax
import jax.numpy as jnp


def train_mode(model, rate, key, places):
  """Makes the blocks of a model drop residual branches at random.

  Args:
    model: a `VisionTransformer`.
    rate: drop rate of the last block, in [0, 1).
    key: PRNG key of the step.
    places: (b,) int position of each image in the global batch. An image's draws depend only on it
      and the key, so they are the same for any number of devices and any split of the batch.
  """
  last = max(len(model.blocks) - 1, 1)
  for i, block in enumerate(model.blocks):
    if rate and i:
      block.drop_path = _Dropping(rate * i / last, jax.random.fold_in(key, i), places)


class _Dropping:
  """Zeroes the results (b, n, d) of a branch, given its index in the block, for random images."""

  def __init__(self, rate, key, places):
    self._rate, self._key, self._places = rate, key, places

  def __call__(self, y, branch):
    key = jax.random.fold_in(self._key, branch)
    keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(self._places)
    keep = 1.0 - self._rate
    stays = jax.vmap(lambda k: jax.random.bernoulli(k, jnp.float32(keep)))(keys)
    return jnp.where(stays[:, None, None], y / keep, jnp.zeros((), y.dtype))
