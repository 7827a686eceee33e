"""Batch norm as in PyTorch, with running statistics as parameters that are not trained.

The statistics are leaves of the parameter tree, so that one tree is averaged, saved and exported.
They receive no gradient; `update_statistics` updates them.
"""

import re

import jax
from flax import nnx

from asvit_jax.core import leaves


class BatchNorm(nnx.BatchNorm):
  """Batch norm with the unbiased running variance of PyTorch; Flax's is biased."""

  def __call__(self, x):
    """(..., channels) -> (..., channels); in training, also updates the running statistics."""
    if self.use_running_average:
      return super().__call__(x)
    before = self.momentum * self.var[...]
    y = super().__call__(x)
    count = x.size // x.shape[-1]
    if self.axis_name is not None:
      count = jax.lax.psum(count, self.axis_name)
    self.var[...] = before + (self.var[...] - before) * count / (count - 1)
    return y


def train_mode(model, axis_name=None, freeze=""):
  """Makes batch norms use the statistics of the batch, over all devices along `axis_name`.

  Batch norms whose statistics' names match the regular expression `freeze` are excluded: they keep
  using their running statistics.
  """

  def learns(path, module):
    name = ".".join(map(str, (*path, "mean")))
    return isinstance(module, BatchNorm) and not (freeze and re.search(freeze, name))

  model.set_attributes(
    learns, use_running_average=False, axis_name=axis_name, raise_if_not_found=False
  )


def update_statistics(params, model):
  """`params` with the running statistics from `model` after a forward pass in training."""
  _, state = nnx.split(model)
  return leaves.map_named(
    lambda name, old, new: new if is_statistic(name) else old, params, nnx.to_pure_dict(state)
  )


def is_statistic(name):
  """Whether a leaf of the parameters is a running statistic, by its name."""
  return name.rpartition(".")[2] in ("mean", "var")
