"""What blocks are handed to mix tokens with, and what a stage decides by."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES
from asvit_jax.sparsity.similarity import cosine_similarity


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
  def of(cls, arch, score=None, reduction=None):
    """Those that an `Architecture` names, for its tokens.

    Args:
      arch: an `Architecture`.
      score: in place of its own, see `scores`.
      reduction: in place of its own, see `reductions`.
    """
    return cls(
      ATTENTIONS[arch.attention],
      score or SCORES[arch.score],
      reduction or REDUCTIONS[arch.reduction],
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

  @property
  def compacts(self):
    """Whether `compacted` merges and compacts in one product; see `reductions`."""
    return self.merges and hasattr(self.reduction, "destinations")

  def similarity(self, stage):
    """What scores and reductions that compare tokens themselves are handed, once a `Stage`.

    Returns:
      (b, m, m) float32 cosines of the tokens that they see; None where neither asks for them.
    """
    if not (uses_similarity(self.score) or uses_similarity(self.reduction)):
      return None
    return cosine_similarity(self._seen(stage.x))

  def scores(self, stage, similarity=None):
    """(b, n) float32 scores of a `Stage`; infinite before the patches, as these always stay.

    Args:
      stage: it.
      similarity: of it, where it is there already.
    """
    gathered, sizes, present = self._seen((stage.evidence.gathered, stage.sizes, stage.present))
    more = {"sizes": sizes} if getattr(self.score, "uses_sizes", False) else {}
    compared = self._compared(self.score, stage, similarity)
    scores = self.score(gathered, compared, present > 0, self.exponents, **more)
    scores = jnp.where(jnp.arange(scores.shape[1]) == 0, jnp.inf, scores)
    if self.prefix_tokens == 1:
      return scores
    return jnp.pad(scores, ((0, 0), (self.prefix_tokens - 1, 0)), constant_values=jnp.inf)

  def reduce(self, stage, keep, similarity=None):
    """The tokens and sizes of a `Stage` when only those of the (b, n) mask `keep` go on.

    They stay where they are; `similarity` as for `scores`.
    """
    if not self.merges:
      return stage.x, stage.sizes
    before = stage.x, stage.sizes
    x, sizes, present, keep = self._seen((*before, stage.present, keep))
    compared = self._compared(self.reduction, stage, similarity)
    reduced = self.reduction(x, sizes, present, keep, compared)
    return tuple(self._put_back(new, old) for new, old in zip(reduced, before, strict=True))

  def compacted(self, stage, keep, source, similarity=None, gone=None):
    """As `reduce`, with the tokens that go on first.

    Where the reduction says which token goes where, one product of (width, n) and (n, d) merges and
    compacts, or one of (width, gone) and (gone, d) adds those that go to the others. Else tokens
    are reduced, and then gathered.

    Args:
      stage: it.
      keep: (b, n) mask.
      source: (b, width) int, which token each of the first ones is; n or more where none is.
      similarity: as for `scores`.
      gone: (b, n - width) int, the tokens that do not go on, where `source` has all that do.

    Returns:
      (b, width, d) tokens and (b, width) sizes, None where nothing is merged. Where there is no
      token, it is 0 and its size 1.
    """
    n = keep.shape[1]
    if not self.compacts:
      x, sizes = self.reduce(stage, keep, similarity)
      there = source < n
      x = jnp.where(there[..., None], _take(x, source), 0)
      return x, None if sizes is None else jnp.where(there, _take(sizes, source), 1.0)
    tokens = (
      self._destinations(stage, keep, similarity),
      jnp.where(stage.present > 0, stage.sizes, 0.0),
      stage.x.astype(jnp.float32),
    )
    if gone is None or not gone.shape[1]:
      mass, sizes = _summed(source, *tokens)
    else:
      _, own_sizes, own = (_take(a, source) for a in tokens)
      mass, sizes = _summed(source, *(_take(a, gone) for a in tokens))
      mass, sizes = mass + own_sizes[..., None] * own, sizes + own_sizes
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    return (mass / sizes[..., None]).astype(stage.x.dtype), sizes

  def _destinations(self, stage, keep, similarity):
    """(b, n) int, the token that each becomes part of: itself where it goes on, n where none."""
    n, hidden = keep.shape[1], self.prefix_tokens - 1
    compared = self._compared(self.reduction, stage, similarity)
    seen = self.reduction.destinations(self._seen(keep), compared)  # by what it sees
    if hidden:
      seen = jnp.where(seen > 0, seen + hidden, seen)
      itself = jnp.broadcast_to(jnp.arange(1, 1 + hidden), (seen.shape[0], hidden))
      seen = jnp.concatenate([seen[:, :1], itself, seen[:, 1:]], axis=1)
    return jnp.where(keep > 0, jnp.arange(n), jnp.minimum(seen, n))

  def _compared(self, part, stage, similarity):
    """What a score or a reduction compares tokens by: their similarity, or their keys."""
    if uses_similarity(part):
      return self.similarity(stage) if similarity is None else similarity
    return self._seen(stage.evidence.keys)

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


def _summed(source, destinations, sizes, x):
  """The mass and the size that tokens bring to where they go.

  Args:
    source: (b, width) int, what the places there are.
    destinations: (b, n) int, the one of them that each token goes to.
    sizes: (b, n) of the tokens.
    x: (b, n, d), the tokens.

  Returns:
    (b, width, d) sums of tokens, weighted by size, and (b, width) of sizes.
  """
  moved = jnp.where(destinations[:, None, :] == source[..., None], sizes[:, None, :], 0.0)
  return jnp.einsum("bwn,bnd->bwd", moved, x, precision="highest"), moved.sum(axis=-1)


def _take(tokens, rows):
  """(b, n, …) arrays of tokens and (b, m) of their rows -> (b, m, …)."""
  rows = rows.reshape(*rows.shape, *[1] * (tokens.ndim - 2))
  return jnp.take_along_axis(tokens, rows, axis=1, mode="clip")


def uses_similarity(part):
  """Whether a score or a reduction compares tokens themselves; see there."""
  return getattr(part, "uses_similarity", False)


def _bias(sizes):
  """Of the logits, so that a token counts as often as it stands for patches."""
  return None if sizes is None else jnp.log(sizes)
