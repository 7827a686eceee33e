"""What blocks are handed to mix tokens with, and what a stage decides by."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES


class Evidence(NamedTuple):
  """What a block leaves behind for the next stage; arrays of tokens, in any arrangement.

  Attributes:
    gathered: what the score needs, see `scores`.
    keys: (…, c), the mean over the heads; None where neither score nor reduction compares them.
  """

  gathered: Any
  keys: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stage:
  """The tokens of images before a stage; the class token is the first.

  Attributes:
    x: (b, n, d).
    sizes: (b, n) patches that each stands for; None where nothing is merged.
    present: (b, n) mask, 1 for those that are there; what the others hold means nothing.
    evidence: of the block before, (b, n, …).
  """

  x: jax.Array
  sizes: jax.Array | None
  present: jax.Array
  evidence: Evidence


@dataclasses.dataclass(frozen=True)
class Attending:
  """The parts that a network attends, scores and reduces with.

  Its methods `dense`, `masked` and `prefix` are functions of (q, k, v), each (b, n, h, c), for
  `vit.layers.Block`: they return the (b, n, h, c) context and `Evidence`, which `jit` drops where
  nobody reads it. Queries may be those of the first tokens only; then there is no evidence.

  Attributes:
    attention: see `attentions`.
    score: see `scores`.
    reduction: see `reductions`.
    exponents: of the score.
  """

  attention: Any
  score: Any
  reduction: Any
  exponents: tuple[float, ...] = (1.0, 1.0)

  @classmethod
  def of(cls, arch):
    """Those that an `Architecture` names."""
    return cls(
      ATTENTIONS[arch.attention],
      SCORES[arch.score],
      REDUCTIONS[arch.reduction],
      arch.score_exponents,
    )

  @property
  def merges(self):
    """Whether tokens may stand for several patches."""
    return self.reduction.changes_tokens

  def first_sizes(self, b, n):
    """(b, n) sizes before the first stage; None where nothing is merged."""
    return jnp.ones((b, n), jnp.float32) if self.merges else None

  def dense(self, q, k, v, sizes=None):
    """Every token sees every token; `sizes` are (b, n), or None where all are 1."""
    return self._with_evidence(self.attention.dense(q, k, v, _bias(sizes)), k)

  def masked(self, q, k, v, keep, sizes=None):
    """Tokens of `keep`, a (b, n) mask, see each other."""
    bias = None if sizes is None else _bias(jnp.where(keep > 0, sizes, 1.0))
    return self._with_evidence(self.attention.masked(q, k, v, keep, bias), k)

  def prefix(self, q, k, v, count, sizes=None):
    """The first `count` (b,) tokens of every image see each other."""
    if sizes is not None:
      sizes = jnp.where(jnp.arange(k.shape[1]) < count[:, None], sizes, 1.0)
    return self._with_evidence(self.attention.prefix(q, k, v, count, _bias(sizes)), k)

  def scores(self, stage):
    """(b, n) float32 scores of a `Stage`; those of class tokens are infinite: they always stay."""
    scores = self.score(
      stage.evidence.gathered, stage.evidence.keys, stage.present > 0, self.exponents
    )
    return scores.at[:, 0].set(jnp.inf)

  def reduce(self, stage, keep):
    """The tokens and sizes of a `Stage` when only those of the (b, n) mask `keep` go on."""
    if not self.merges:
      return stage.x, stage.sizes
    return self.reduction(stage.x, stage.sizes, stage.present, keep, stage.evidence.keys)

  def _with_evidence(self, attended, k):
    context, class_attention = attended
    if context.shape[1] < k.shape[1]:
      return context, None
    keys = None
    if self.score.uses_keys or self.reduction.uses_keys:
      keys = k.astype(jnp.float32).mean(axis=-2)
    return context, Evidence(self.score.gather(class_attention, context), keys)


def _bias(sizes):
  """Of the logits, so that a token counts as often as it stands for patches."""
  return None if sizes is None else jnp.log(sizes)
