"""What methods share that keep the same number of tokens in every image."""

import functools

import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import complexity, schedule
from asvit_jax.sparsity.executions.fixed_count import fixed_count
from asvit_jax.sparsity.executions.grouped import CACHED_PACKED, in_groups

# Keep ratios to choose from: finer than one token of 196 at a third power.
_RATIOS = np.linspace(1.0, 0.0, 2001)


class FixedCount:
  """Keeps the tokens of highest score, by an architecture's parts and schedule; see `methods`."""

  adaptive = False

  def architecture(self, paper, merging):
    """The `Architecture` that the method runs, of the two given; see `methods`."""
    del merging
    return paper

  def counts(self, arch, ratio):
    """Patches that each stage keeps where a stage of weight 1 keeps the share `ratio`, a tuple."""
    return tuple(round(arch.patches * ratio**exponent) for exponent in arch.stage_exponents)

  def choices(self, arch):
    """All numbers that a budget may choose from, the first of which takes nothing away."""
    return list(dict.fromkeys(self.counts(arch, float(ratio)) for ratio in _RATIOS))

  def solve(self, arch, budget):
    """The counts that come nearest to a budget, a tuple; see `methods`."""
    complexity.check_share(budget)
    choices = self.choices(schedule.with_stage_weights(arch, budget))
    shares = self.cost(arch, np.array(choices)) / complexity.dense_gmacs(arch)
    if budget < shares.min():
      raise InputError(
        f"budget {budget:g} cannot be met by {type(self).__name__}: {shares.min():.3f} of the "
        "dense GMACs is the least; ask for more, or leave it out"
      )
    return choices[int(np.argmin(abs(shares - budget)))]

  def cost(self, arch, counts, real=False):
    """(..., stages) patches kept -> (...) GMACs."""
    return complexity.cost(arch, np.asarray(counts, np.float64), real)

  def forward(self, model, images, counts):
    """`Outputs` of normalised images (b, s, s, 3), all of them at once."""
    return fixed_count(model, images, counts)

  def execution(self, counts):
    """Function that runs the network as inference does, see `methods`."""
    return in_groups(functools.partial(self.forward, counts=counts), CACHED_PACKED)

  def training(self, counts):
    """Function that runs the network as fine-tuning does, see `methods`."""
    return functools.partial(self.forward, counts=counts)


def take(tokens, index):
  """(b, n, ...) tokens and (b, m) indices -> (b, m, ...)."""
  return jnp.take_along_axis(tokens, index.reshape(*index.shape, *[1] * (tokens.ndim - 2)), axis=1)
