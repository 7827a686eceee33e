"""What blocks are handed to mix tokens with: an attention, and the scores that it gives tokens."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.scores import SCORES


@dataclasses.dataclass(frozen=True)
class Attending:
  """Functions of (q, k, v) for `vit.layers.Block`; `jit` drops the scores where nobody reads them.

  Attributes:
    attention: see `attentions`.
    score: see `scores`.
  """

  attention: Any
  score: Any

  @classmethod
  def of(cls, arch):
    """With the parts that an `Architecture` names."""
    return cls(ATTENTIONS[arch.attention], SCORES[arch.score])

  def dense(self, q, k, v):
    """Every token sees every token.

    Args:
      q: (b, n, h, c) queries; token 0 is the class token.
      k: (b, n, h, c) keys.
      v: (b, n, h, c) values.

    Returns:
      (b, n, h, c) context and (b, n) float32 scores; those of class tokens are infinite: they
      always stay.
    """
    present = jnp.ones(q.shape[:2], bool)
    return self._scored(self.attention.dense(q, k, v), k, present)

  def masked(self, q, k, v, keep):
    """Tokens of `keep` (b, n) see each other; otherwise as `dense`."""
    return self._scored(self.attention.masked(q, k, v, keep), k, keep > 0)

  def prefix(self, q, k, v, count):
    """The first `count` (b,) tokens of every image see each other; otherwise as `dense`."""
    present = jnp.arange(k.shape[1]) < count[:, None]
    return self._scored(self.attention.prefix(q, k, v, count), k, present)

  def _scored(self, attended, keys, present):
    context, class_attention = attended
    scores = self.score(
      class_attention=class_attention, context=context, keys=keys, present=present
    )
    return context, scores.at[:, 0].set(jnp.inf)
