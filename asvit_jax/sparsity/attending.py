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
  """The tokens of images before a stage: `Architecture.prefix_tokens` of them, then patches.

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
    prefix_tokens: number of tokens before the patches. Scores and reductions see the first alone.
  """

  attention: Any
  score: Any
  reduction: Any
  exponents: tuple[float, ...] = (1.0, 1.0)
  prefix_tokens: int = 1

  @classmethod
  def of(cls, arch):
    """Those that an `Architecture` names."""
    return cls(
      ATTENTIONS[arch.attention],
      SCORES[arch.score],
      REDUCTIONS[arch.reduction],
      arch.score_exponents,
      arch.prefix_tokens,
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
    """(b, n) float32 scores of a `Stage`; infinite before the patches, as these always stay."""
    compared = _compared(self.score, stage)
    gathered, compared, sizes = self._seen((stage.evidence.gathered, compared, stage.sizes))
    more = {"sizes": sizes} if getattr(self.score, "uses_sizes", False) else {}
    scores = self.score(gathered, compared, self._seen(stage.present) > 0, self.exponents, **more)
    scores = scores.at[:, 0].set(jnp.inf)
    if self.prefix_tokens == 1:
      return scores
    return jnp.pad(scores, ((0, 0), (self.prefix_tokens - 1, 0)), constant_values=jnp.inf)

  def reduce(self, stage, keep):
    """The tokens and sizes of a `Stage` when only those of the (b, n) mask `keep` go on."""
    if not self.merges:
      return stage.x, stage.sizes
    before = stage.x, stage.sizes
    seen = (*before, stage.present, keep, _compared(self.reduction, stage))
    reduced = self.reduction(*self._seen(seen))
    return tuple(self._put_back(new, old) for new, old in zip(reduced, before, strict=True))

  def _seen(self, tree):
    """Arrays (b, n, …) of the class token and the patches."""
    if self.prefix_tokens == 1:
      return tree
    n = self.prefix_tokens
    return jax.tree.map(lambda a: jnp.concatenate([a[:, :1], a[:, n:]], axis=1), tree)

  def _put_back(self, seen, all_):
    """Of all tokens again; those that `_seen` left out as they are in `all_`."""
    if self.prefix_tokens == 1:
      return seen
    return jnp.concatenate([seen[:, :1], all_[:, 1 : self.prefix_tokens], seen[:, 1:]], axis=1)

  def _with_evidence(self, attended, k):
    context, class_attention = attended
    if context.shape[1] < k.shape[1]:
      return context, None
    keys = None
    if self.score.uses_keys or self.reduction.uses_keys:
      keys = k.astype(jnp.float32).mean(axis=-2)
    return context, Evidence(self.score.gather(class_attention, context), keys)


def _compared(part, stage):
  """What a score or a reduction compares tokens by: themselves, or their keys."""
  return stage.x if getattr(part, "uses_tokens", False) else stage.evidence.keys


def _bias(sizes):
  """Of the logits, so that a token counts as often as it stands for patches."""
  return None if sizes is None else jnp.log(sizes)
