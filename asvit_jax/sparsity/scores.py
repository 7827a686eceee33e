"""Scores: how much a token matters. A stage keeps the tokens whose score exceeds its threshold.

A score is an object with

  uses_keys: bool, whether it compares the keys of tokens.
  gather(class_attention, context): returns the attention score of each token in a block, (b, n) or
    (b, n, …), given the float32 (b, n, h) attention of the class token to every token and the
    (b, n, h, c) output of each head at every token. A stage uses that of the block before it.
  __call__(attention_score, keys, present, exponents): returns the (b, n) float32 scores at a stage,
    from the attention score of the block before. `keys` are (b, n, c), the mean over the heads
    (None unless `uses_keys`). `present` is the (b, n) bool mask of the tokens left; scores of other
    tokens are ignored. `exponents` are the architecture's. Arguments are passed by position.

A score may also have

  uses_similarity: bool, whether it compares the tokens themselves, the residual stream at the
    stage: it then receives their (b, n, n) float32 cosine similarities in place of `keys`, computed
    once for the score and the reduction.
  uses_sizes: bool, whether it takes the keyword `sizes`, (b, n) number of patches that each token
    stands for; None if nothing is merged.
  stage_weights(budget, stages): default `Architecture.stage_weights` for a share of the dense
    GMACs, used if the architecture sets none.

n includes the class token, which is the first; its score is ignored.

In a network whose prediction does not read the class token (`Architecture.pool`), the class token's
attention is replaced by the attention that a token receives: the mean over all tokens left. In one
without tokens before the patches, a row of ones stands for the class token.
"""

import sys

import jax.numpy as jnp
import numpy as np

from asvit_jax.core.finite import finite
from asvit_jax.core.parts import Table

_LEAST = 1e-12  # powers and logarithms have no finite slope at 0
# Stage weights are e^(s·t + c·(t² - 1/3)), t from -1 at the first stage to 1 at the last, with a
# slope s and a curve c for each budget. With c below 0 the middle stages prune most; the larger the
# budget, the later the stages that prune. These had the least divergence of those tried on training
# images with DeiT-T.
_BUDGETS = (0.3, 0.4, 0.5, 0.65, 0.8)
_SLOPES = (0.0, 0.15, 0.45, 0.85, 1.1)
_CURVES = (0.0, -0.5, -0.7, -0.9, -0.9)


def cosine_similarity(keys, others=None):
  """(b, n, c) keys and (b, m, c) other keys, by default the same -> (b, n, m) float32 cosines."""
  keys = unit(keys)
  others = keys if others is None else unit(others)
  return jnp.einsum("bic,bjc->bij", keys, others)


def unit(keys):
  """(…, c) keys -> (…, c) float32, of length 1; 0 stays 0."""
  keys = keys.astype(jnp.float32)
  return keys / (jnp.linalg.norm(keys, axis=-1, keepdims=True) + 1e-6)


def uses_similarity(part):
  """Whether a score or a reduction compares the tokens themselves, see the module's description."""
  return getattr(part, "uses_similarity", False)


class ClassAttention:
  """Class attention weighted by each head's importance to the token; a score, see `scores`."""

  uses_keys = False

  def gather(self, class_attention, context):
    """(..., h) attention and (..., h, c) context -> (...) float32, at most the largest head's."""
    norm = jnp.linalg.norm(context.astype(jnp.float32), axis=-1)
    importance = norm / (norm.sum(axis=-1, keepdims=True) + 1e-8)
    return (importance * class_attention.astype(jnp.float32)).sum(axis=-1)

  def __call__(self, attention_score, keys, present, exponents):
    """Returns the attention score, which is the score."""
    del keys, present, exponents
    return attention_score


class_attention = ClassAttention()


class AttentionNovelty(ClassAttention):
  """attention^β · novelty^γ; a score, see `scores`.

  Attention is the paper's score. The novelty of a token is one minus the largest cosine similarity
  of its key to the keys of patch tokens with more attention. Among similar tokens, the one with the
  most attention is kept; the others are removed, and merge well with it.
  """

  uses_keys = True

  def __call__(self, attention_score, keys, present, exponents):
    """(b, n) scores of the tokens; `exponents` are (β, γ), see `scores`."""
    similarity = cosine_similarity(keys)
    others = present & (jnp.arange(present.shape[1]) > 0)
    more = attention_score[:, None, :] > attention_score[:, :, None]  # (b, token, other)
    nearest = jnp.max(jnp.where(more & others[:, None, :], similarity, 0.0), axis=-1)
    attention_exponent, novelty_exponent = exponents
    # Away from 0, where a power has no finite slope.
    novelty = jnp.maximum(1.0 - nearest, 1e-6)
    return jnp.maximum(attention_score, 1e-12) ** attention_exponent * novelty**novelty_exponent


attention_novelty = AttentionNovelty()


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

  def __call__(self, attention_score, similarity, present, exponents, sizes):
    """(b, n) scores; `exponents` are (β, γ, ω, α), 0 where omitted, see `scores`."""
    n = present.shape[1]
    patches = present & (jnp.arange(n) > 0)
    # (b, other, token): symmetric, so the maximum is taken over the first axis, for which CPUs have
    # vector instructions.
    more = (attention_score[:, :, None] > attention_score[:, None, :]) & patches[:, :, None]
    nearest = jnp.where(more, similarity, -jnp.inf).max(axis=1)
    # The token with the most attention is like none before it.
    alike = jnp.where(finite(nearest), nearest, 0.0)
    other = None
    if sizes is not None:
      at = more & (similarity >= nearest[:, None, :])
      other = jnp.where(at, sizes[:, :, None], 0.0).max(axis=1)
      other = jnp.where(other > 0, other, sizes)
    return self.cost(attention_score, alike, sizes, other, patches, exponents)

  def cost(self, attention_score, alike, sizes, other, patches, exponents):
    """The cost, from what was found about each token.

    Args:
      attention_score: (b, n).
      alike: (b, n), the largest cosine.
      sizes: (b, n) sizes of the tokens; None if nothing is merged.
      other: (b, n) sizes of the most similar tokens; None if nothing is merged.
      patches: (b, n) bool mask of the patch tokens that there are.
      exponents: see `__call__`.

    Returns:
      (b, n) costs.
    """
    attention, novelty, size, level = (*exponents, 0.0, 0.0)[:4]
    cost = _power(jnp.maximum(attention_score, _LEAST), attention)
    cost *= _power(jnp.maximum(1.0 - alike, 1e-6), novelty)
    if sizes is not None and size:
      cost *= _power(sizes * other / (sizes + other), size)
    if level:
      there = patches.astype(jnp.float32)
      logs = (there * jnp.log(jnp.where(patches, cost, 1.0))).sum(axis=1, keepdims=True)
      cost *= jnp.exp(-level * logs / jnp.maximum(there.sum(axis=1, keepdims=True), 1.0))
    return cost

  def stage_weights(self, budget, stages):
    """Default stage weights, interpolated between measured budgets; see `scores`."""
    slope, curve = np.interp(budget, _BUDGETS, _SLOPES), np.interp(budget, _BUDGETS, _CURVES)
    t = np.linspace(-1, 1, stages)
    return tuple(float(f"{w:.3g}") for w in np.exp(slope * t + curve * (t**2 - 1 / 3)))


def _power(x, exponent):
  """x^exponent, with faster instructions for the common exponents 0, 0.5 and 1."""
  known = {0.0: jnp.ones_like, 0.5: jnp.sqrt, 1.0: lambda x: x}
  return known.get(exponent, lambda x: x**exponent)(x)


merge_cost = MergeCost()

# Parts of users may import `ClassAttention` from this name, too.
sys.modules[f"{__name__}.class_attention"] = sys.modules[__name__]

SCORES = Table(
  "score",
  "model.score",
  {
    "class_attention": class_attention,
    "attention_novelty": attention_novelty,
    "merge_cost": merge_cost,
  },
)
