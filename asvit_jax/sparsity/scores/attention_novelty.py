"""The paper's score times the novelty of a token among those with more attention."""

import jax.numpy as jnp

from asvit_jax.sparsity.scores.class_attention import ClassAttention
from asvit_jax.sparsity.similarity import cosine_similarity


class AttentionNovelty(ClassAttention):
  """attention^β · novelty^γ; a score, see `scores`.

  Attention is the paper's score. The novelty of a token is one minus the largest cosine similarity
  of its key to the keys of patch tokens with more attention. Among similar tokens, the one with the
  most attention is kept; the others are removed, and merge well with it.
  """

  uses_keys = True

  def __call__(self, gathered, keys, present, exponents):
    """(b, n) scores of the tokens; `exponents` are (β, γ), see `scores`."""
    similarity = cosine_similarity(keys)
    others = present & (jnp.arange(present.shape[1]) > 0)
    more = gathered[:, None, :] > gathered[:, :, None]  # (b, token, other)
    nearest = jnp.max(jnp.where(more & others[:, None, :], similarity, 0.0), axis=-1)
    attention_exponent, novelty_exponent = exponents
    # Away from 0, where a power has no finite slope.
    novelty = jnp.maximum(1.0 - nearest, 1e-6)
    return jnp.maximum(gathered, 1e-12) ** attention_exponent * novelty**novelty_exponent


attention_novelty = AttentionNovelty()
