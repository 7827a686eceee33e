"""The two adaptive methods: thresholds decide, so every image keeps its own number of tokens."""

import functools

from asvit_jax.sparsity import complexity
from asvit_jax.sparsity.executions import EXECUTIONS
from asvit_jax.sparsity.executions.in_place import masked
from asvit_jax.sparsity.gates import hard_gate


class Drop:
  """Adaptive Sparse ViT as published (arXiv:2209.13802); a method, see `methods`.

  A stage drops the tokens whose score is not above its threshold. Score and stages are the paper's.
  Inference is packed; fine-tuning is masked, with constant thresholds.
  """

  adaptive = True

  def architecture(self, paper, merging):
    """The `Architecture` of the paper."""
    del merging
    return paper

  def solve(self, arch, budget):
    """Returns (), as thresholds decide; raises InputError for a budget that cannot be met."""
    complexity.check_budget(arch, budget)
    return ()

  def cost(self, arch, counts, real=False):
    """(..., stages) patches kept -> (...) GMACs, by the paper's count or the real ones."""
    return complexity.cost(arch, counts, real)

  def execution(self, counts):
    """The function for inference: packed execution."""
    del counts
    return EXECUTIONS["packed"]

  def training(self, counts):
    """The function for fine-tuning: masked execution, without gradients to the thresholds."""
    del counts
    return functools.partial(masked, gate=hard_gate)


class Merge(Drop):
  """Our adaptive merging; a method, see `methods`.

  A token whose score is not above the threshold is merged into the most similar kept token. Score,
  stages, their weights and the reduction are our recipes'.
  """

  def architecture(self, paper, merging):
    """The `Architecture` of the recipes."""
    del paper
    return merging


drop = Drop()
merge = Merge()
