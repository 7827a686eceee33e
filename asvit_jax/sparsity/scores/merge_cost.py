"""The cost of merging a token into the one most similar to it."""

import jax.numpy as jnp
import numpy as np

from asvit_jax.sparsity.scores.class_attention import ClassAttention

_LEAST = 1e-12  # powers and logarithms have no finite slope at 0
# Stages cut as e^(s·t + c·(t² - 1/3)), t from -1 at the first to 1 at the last; slopes s and curves
# c by the share of the dense GMACs. With c below 0 the middle gives most; the less is to go, the
# more of it late. Of what was tried on training images with DeiT-T, what had least divergence.
_SHARES = (0.3, 0.4, 0.5, 0.65, 0.8)
_SLOPES = (0.0, 0.15, 0.45, 0.85, 1.1)
_CURVES = (0.0, -0.5, -0.7, -0.9, -0.9)


class MergeCost(ClassAttention):
  """attention^β · (1 - cosine)^γ · (s·s' / (s + s'))^ω, relative to the image; see `scores`.

  Attention is the paper's score of a token. The cosine compares the token (the residual stream at
  the stage) with the most similar patch token among those with more attention. Among similar
  tokens, the one with the most attention is kept; the others are removed, and merge well with it. s
  and s' are the sizes of the two tokens. Their factor is Ward's: the distance by which merging two
  clusters moves their mean (ATM, arXiv:2505.15160).

  The cost is divided by its geometric mean over the image's patch tokens to the power α. At α = 0
  an image with low costs throughout keeps few tokens; at α = 1 all images keep about the same
  number.
  """

  uses_keys = False
  uses_similarity = True
  uses_sizes = True

  def __call__(self, gathered, similarity, present, exponents, sizes):
    """(b, n) scores; `exponents` are (β, γ, ω, α), 0 where omitted, see `scores`."""
    n = present.shape[1]
    attention, novelty, size, level = (*exponents, 0.0, 0.0)[:4]
    patches = present & (jnp.arange(n) > 0)
    # (b, other, token): reduced over the first axis of what is symmetric, for which a CPU has
    # vector instructions.
    more = (gathered[:, :, None] > gathered[:, None, :]) & patches[:, :, None]
    nearest = jnp.where(more, similarity, -jnp.inf).max(axis=1)
    # The token with the most attention is like none before it.
    alike = jnp.where(jnp.isfinite(nearest), nearest, 0.0)
    cost = _power(jnp.maximum(gathered, _LEAST), attention)
    cost *= _power(jnp.maximum(1.0 - alike, 1e-6), novelty)
    if sizes is not None and size:
      at = more & (similarity >= nearest[:, None, :])
      other = jnp.where(at, sizes[:, :, None], 0.0).max(axis=1)
      other = jnp.where(other > 0, other, sizes)
      cost *= _power(sizes * other / (sizes + other), size)
    if level:
      there = patches.astype(jnp.float32)
      logs = (there * jnp.log(jnp.where(patches, cost, 1.0))).sum(axis=1, keepdims=True)
      cost *= jnp.exp(-level * logs / jnp.maximum(there.sum(axis=1, keepdims=True), 1.0))
    return cost

  def stage_weights(self, budget, stages):
    """Default stage weights, interpolated between measured budgets; see `scores`."""
    slope, curve = np.interp(budget, _SHARES, _SLOPES), np.interp(budget, _SHARES, _CURVES)
    t = np.linspace(-1, 1, stages)
    return tuple(float(f"{w:.3g}") for w in np.exp(slope * t + curve * (t**2 - 1 / 3)))


def _power(x, exponent):
  """x^exponent, with faster instructions for the common exponents 0, 0.5 and 1."""
  known = {0.0: jnp.ones_like, 0.5: jnp.sqrt, 1.0: lambda x: x}
  return known.get(exponent, lambda x: x**exponent)(x)


merge_cost = MergeCost()
