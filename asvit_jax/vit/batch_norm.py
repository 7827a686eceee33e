"""Batch norm as PyTorch has it, and its running statistics, which are parameters that none learns.

The statistics are leaves of the parameter tree: what is averaged, saved and exported is then one
tree. No gradient reaches them; `update_statistics` moves them.
"""

import re

import jax
from flax import nnx

from asvit_jax.core import leaves


class BatchNorm(nnx.BatchNorm):
  """Batch norm whose running variance is PyTorch's, the unbiased one; Flax keeps the biased."""

  def __call__(self, x):
    """(..., channels) -> (..., channels); a training forward also moves the running statistics."""
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
  """Makes batch norms use the batch they see, of all devices along `axis_name`.

  Those whose statistics the regular expression `freeze` is found in go on using these.
  """

  def learns(path, module):
    name = ".".join(map(str, (*path, "mean")))
    return isinstance(module, BatchNorm) and not (freeze and re.search(freeze, name))

  model.set_attributes(
    learns, use_running_average=False, axis_name=axis_name, raise_if_not_found=False
  )


def update_statistics(params, model):
  """`params` with the running statistics that a forward in training left in `model`."""
  _, state = nnx.split(model)
  return leaves.map_named(
    lambda name, old, new: new if is_statistic(name) else old, params, nnx.to_pure_dict(state)
  )


def is_statistic(name):
  """Whether a leaf of the parameters, by name, is a running statistic."""
  return name.rpartition(".")[2] in ("mean", "var")
