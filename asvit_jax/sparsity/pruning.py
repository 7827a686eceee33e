"""`Pruning`: the attention functions that blocks take, and the score and reduction of a stage."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES, cosine_similarity, uses_similarity


class AttentionCache(NamedTuple):
  """The values of a block's attention that the next stage uses, per token, in any token layout.

  Attributes:
    score: (…) or (…, m), the attention score: what `gather` of the score returns, see `scores`.
    keys: (…, c), the mean over the heads; None if neither score nor reduction compares keys.
  """

  score: Any
  keys: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stage:
  """The tokens of images before a stage: `Architecture.prefix_tokens` of them, then patches.

  Attributes:
    x: (b, n, d) tokens.
    sizes: (b, n) number of patches that each token stands for; None if nothing is merged.
    present: (b, n) mask, 1 for the tokens left; the values of other tokens are meaningless.
    cache: `AttentionCache` of the block before, (b, n, …).
  """

  x: jax.Array
  sizes: jax.Array | None
  present: jax.Array
  cache: AttentionCache


@dataclasses.dataclass(frozen=True)
class Pruning:
  """The attention, score and reduction of a network.

  Its methods `dense`, `masked` and `prefix` are attention functions for `vit.layers.Block`: they
  take (q, k, v), each (b, n, h, c), and return the (b, n, h, c) context and an `AttentionCache`,
  which `jit` drops if it is not used. The queries may be those of the first tokens only; then the
  cache is None.

  Attributes:
    attention: the attention, see `attentions`.
    score: the score, see `scores`.
    reduction: the reduction, see `reductions`.
    exponents: exponents of the score.
    prefix_tokens: number of tokens before the patches. Of these, scores and reductions see only the
      first, the class token; a row of ones stands for it if there is none.
    received: whether tokens are scored by the attention that they receive from all tokens, instead
      of that of the class token: the prediction does not read it.
  """

  attention: Any
  score: Any
  reduction: Any
  exponents: tuple[float, ...] = (1.0, 1.0)
  prefix_tokens: int = 1
  received: bool = False

  @classmethod
  def of(cls, arch, score=None, reduction=None):
    """The `Pruning` of an `Architecture`.

    Args:
      arch: an `Architecture`.
      score: a score to use in place of the architecture's, see `scores`.
      reduction: a reduction to use in place of the architecture's, see `reductions`.
    """
    return cls(
      ATTENTIONS[arch.attention],
      score or SCORES[arch.score],
      reduction or REDUCTIONS[arch.reduction],
      arch.score_exponents,
      arch.prefix_tokens,
      arch.pool != "token",
    )

  @property
  def merges(self):
    """Whether tokens may stand for several patches."""
    return self.reduction.changes_tokens

  def first_sizes(self, b, n):
    """(b, n) sizes before the first stage, all 1; None if nothing is merged."""
    return jnp.ones((b, n), jnp.float32) if self.merges else None

  def dense(self, q, k, v, sizes=None):
    """Every token attends to every token; `sizes` are (b, n), or None if all are 1."""
    return self._with_cache(self.attention.dense(q, k, v, _bias(sizes), **self._asked), k)

  def masked(self, q, k, v, keep, sizes=None):
    """The tokens of `keep`, a (b, n) mask, attend to each other."""
    bias = None if sizes is None else _bias(jnp.where(keep > 0, sizes, 1.0))
    return self._with_cache(self.attention.masked(q, k, v, keep, bias, **self._asked), k)

  def prefix(self, q, k, v, count, sizes=None):
    """The first `count` (b,) tokens of every image attend to each other."""
    if sizes is not None:
      sizes = jnp.where(jnp.arange(k.shape[1]) < count[:, None], sizes, 1.0)
    bias = _bias(sizes)
    return self._with_cache(self.attention.prefix(q, k, v, count, bias, **self._asked), k)

  @property
  def _asked(self):
    """Keywords for the attention; none for what every attention returns."""
    return {"received": True} if self.received else {}

  def among(self, keep, sizes=None):
    """The attention function of kept tokens: `masked`, for a (b, n) mask of the patches."""
    return functools.partial(self.masked, keep=self.with_prefix(keep), sizes=sizes)

  def with_prefix(self, keep):
    """(b, n) mask of the patches -> (b, prefix + n); the tokens before the patches are kept."""
    return jnp.concatenate(
      [jnp.ones((keep.shape[0], self.prefix_tokens), keep.dtype), keep], axis=1
    )

  @property
  def compacts(self):
    """Whether `compact` merges and compacts in one product; see `reductions`."""
    return self.merges and hasattr(self.reduction, "destinations")

  def similarity(self, stage):
    """The similarities of a `Stage`'s tokens, computed once for the score and the reduction.

    Returns:
      (b, m, m) float32 cosines of the tokens that they see; None if neither uses them.
    """
    if not (uses_similarity(self.score) or uses_similarity(self.reduction)):
      return None
    return cosine_similarity(self._seen(stage.x))

  def scores(self, stage, similarity=None):
    """(b, n) float32 scores of a `Stage`; infinite for the tokens before the patches, always kept.

    Args:
      stage: the `Stage`.
      similarity: its `similarity`, if already computed.
    """
    attention_score, sizes, present = self._seen((stage.cache.score, stage.sizes, stage.present))
    more = {"sizes": sizes} if getattr(self.score, "uses_sizes", False) else {}
    compared = self._compared(self.score, stage, similarity)
    scores = self.score(attention_score, compared, present > 0, self.exponents, **more)
    if not self.prefix_tokens:
      return _from(scores, 1)
    scores = jnp.where(jnp.arange(scores.shape[1]) == 0, jnp.inf, scores)
    if self.prefix_tokens == 1:
      return scores
    return jnp.pad(scores, ((0, 0), (self.prefix_tokens - 1, 0)), constant_values=jnp.inf)

  def reduce(self, stage, keep, similarity=None):
    """The tokens and sizes of a `Stage` after it keeps only the tokens of the (b, n) mask `keep`.

    Tokens stay in place; `similarity` as for `scores`.
    """
    if not self.merges:
      return stage.x, stage.sizes
    before = stage.x, stage.sizes
    x, sizes, present, keep = self._seen((*before, stage.present, keep))
    compared = self._compared(self.reduction, stage, similarity)
    reduced = self.reduction(x, sizes, present, keep, compared)
    return tuple(self._put_back(new, old) for new, old in zip(reduced, before, strict=True))

  def compact(self, stage, keep, source, similarity=None, gone=None):
    """As `reduce`, but moves the kept tokens to the front.

    If the reduction has `destinations`, one product of (width, n) and (n, d) merges and compacts,
    or one of (width, gone) and (gone, d) adds the removed tokens to the kept ones. Otherwise tokens
    are reduced, and then gathered.

    Args:
      stage: the `Stage`.
      keep: (b, n) mask.
      source: (b, width) int, the index of the token in each of the first rows; n or more for none.
      similarity: as for `scores`.
      gone: (b, n - width) int, the indices of the removed tokens, if `source` has all kept ones.

    Returns:
      (b, width, d) tokens and (b, width) sizes, None if nothing is merged. Rows without a token are
      0, with size 1.
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
    """(b, n) int, the token into which each one is merged: itself if it is kept, n for none."""
    n, hidden = keep.shape[1], self.prefix_tokens - 1
    compared = self._compared(self.reduction, stage, similarity)
    seen = self.reduction.destinations(self._seen(keep), compared)  # indices among the seen tokens
    if hidden < 0:  # no token before the patches
      seen = _from(seen, 1) - 1
    elif hidden:
      seen = jnp.where(seen > 0, seen + hidden, seen)
      itself = jnp.broadcast_to(jnp.arange(1, 1 + hidden), (seen.shape[0], hidden))
      seen = jnp.concatenate([seen[:, :1], itself, seen[:, 1:]], axis=1)
    return jnp.where(keep > 0, jnp.arange(n), jnp.minimum(seen, n))

  def _compared(self, part, stage, similarity):
    """The tokens' similarities or keys, whichever a score or a reduction compares."""
    if uses_similarity(part):
      return self.similarity(stage) if similarity is None else similarity
    return self._seen(stage.cache.keys)

  def _seen(self, tree):
    """Arrays (b, n, …) with one token before the patches, see `prefix_tokens`."""
    if self.prefix_tokens == 1:
      return tree
    n = self.prefix_tokens
    if not n:
      return jax.tree.map(lambda a: jnp.concatenate([jnp.ones_like(a[:, :1]), a], axis=1), tree)
    return jax.tree.map(lambda a: jnp.concatenate([a[:, :1], a[:, n:]], axis=1), tree)

  def _put_back(self, seen, all_):
    """The inverse of `_seen`; takes the tokens that it left out from `all_`."""
    if self.prefix_tokens == 1:
      return seen
    if not self.prefix_tokens:
      return _from(seen, 1)
    return jnp.concatenate([seen[:, :1], all_[:, 1 : self.prefix_tokens], seen[:, 1:]], axis=1)

  def _with_cache(self, attended, k):
    context, class_attention = attended
    if context.shape[1] != k.shape[1]:  # fewer; "<" has no answer for symbolic sizes
      return context, None
    keys = None
    if self.score.uses_keys or self.reduction.uses_keys:
      keys = k.astype(jnp.float32).mean(axis=-2)
    return context, AttentionCache(self.score.gather(class_attention, context), keys)


def _summed(source, destinations, sizes, x):
  """Sums tokens, weighted by size, and sizes at their destinations.

  Args:
    source: (b, width) int, the indices of the destinations.
    destinations: (b, n) int, the index of each token's destination.
    sizes: (b, n) sizes of the tokens.
    x: (b, n, d) tokens.

  Returns:
    (b, width, d) sums of tokens, weighted by size, and (b, width) of sizes.
  """
  moved = jnp.where(destinations[:, None, :] == source[..., None], sizes[:, None, :], 0.0)
  return jnp.einsum("bwn,bnd->bwd", moved, x, precision="highest"), moved.sum(axis=-1)


def _take(tokens, rows):
  """Gathers (b, m) rows from (b, n, …) arrays of tokens -> (b, m, …)."""
  rows = rows.reshape(*rows.shape, *[1] * (tokens.ndim - 2))
  return jnp.take_along_axis(tokens, rows, axis=1, mode="clip")


def _from(tokens, first):
  """Tokens (b, n, …) without the `first` ones.

  A gather if the number of tokens is symbolic: converters do not express slices of that.
  """
  b, n = tokens.shape[:2]
  if isinstance(n, int):
    return tokens[:, first:]
  return _take(tokens, jnp.broadcast_to(first + jnp.arange(n - first), (b, n - first)))


def _bias(sizes):
  """The bias of attention logits that gives a token the weight of its number of patches."""
  return None if sizes is None else jnp.log(sizes)
