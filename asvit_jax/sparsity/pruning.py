"""`Pruning`: the attention functions that blocks take, and the score and reduction of a stage."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES, cosine_similarity, uses_similarity
from asvit_jax.vit.rope import Rope


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
    places: (b, n, 2), see `Rope.places`, of tokens that merging has moved; None if their positions
      tell them: before the first stage, and if nothing moves.
  """

  x: jax.Array
  sizes: jax.Array | None
  present: jax.Array
  cache: AttentionCache
  places: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Pruning:
  """The attention, score and reduction of a network.

  Its methods `dense`, `masked` and `prefix` are attention functions for `vit.layers.Block`: they
  take (q, k, v), each (b, n, h, c), and return the (b, n, h, c) context and an `AttentionCache`,
  which `jit` drops if it is not used. The queries may be those of the first tokens only; then the
  cache is None.

  With rotary positions they rotate queries and keys, by the `rotation` of the tokens if they are
  not all there, in their places. The keys of the cache are not rotated: a comparison asks whether
  two tokens show the same, wherever they are.

  Attributes:
    attention: the attention, see `attentions`.
    score: the score, see `scores`.
    reduction: the reduction, see `reductions`.
    exponents: exponents of the score.
    prefix_tokens: number of tokens before the patches. Of these, scores and reductions see only the
      first, the class token; a row of ones stands for it if there is none.
    received: whether tokens are scored by the attention that they receive from all tokens, instead
      of that of the class token: the prediction does not read it.
    rope: the rotary positions, a `vit.rope.Rope`; None for none.
    moves: whether a merged token is at the mean place of its patches, with rotary positions; see
      `Architecture.rope_merged`.
  """

  attention: Any
  score: Any
  reduction: Any
  exponents: tuple[float, ...] = (1.0, 1.0)
  prefix_tokens: int = 1
  received: bool = False
  rope: Rope | None = None
  moves: bool = True

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
      Rope.of(arch),
      arch.rope_merged == "mean",
    )

  @property
  def merges(self):
    """Whether tokens may stand for several patches."""
    return self.reduction.changes_tokens

  def first_sizes(self, b, n):
    """(b, n) sizes before the first stage, all 1; None if nothing is merged."""
    return jnp.ones((b, n), jnp.float32) if self.merges else None

  def rotation(self, position=None, places=None):
    """The rotation of tokens for the attention functions; None without rotary positions.

    Args:
      position: (b, n) int, the original index of each token in its image; None for all tokens, in
        their places.
      places: (b, n, 2) places of the tokens, if merging moved them; they take precedence.

    Returns:
      The cosines and sines of `Rope.rotate`, (b, n, c/2) each; None for those of all tokens.
    """
    if self.rope is None:
      return None
    if places is not None:
      angles = self.rope.angles(places)
      return jnp.cos(angles), jnp.sin(angles)
    if position is None:
      return None
    return tuple(_take(jnp.asarray(table)[None], position) for table in self.rope.table())

  def dense(self, q, k, v, sizes=None, rotation=None):
    """Every token attends to every token; `sizes` are (b, n), or None if all are 1."""
    queries, keys = self._rotated(q, k, rotation)
    attended = self.attention.dense(queries, keys, v, _bias(sizes), **self._asked)
    return self._with_cache(attended, k)

  def masked(self, q, k, v, keep, sizes=None, rotation=None):
    """The tokens of `keep`, a (b, n) mask, attend to each other."""
    bias = None if sizes is None else _bias(jnp.where(keep > 0, sizes, 1.0))
    queries, keys = self._rotated(q, k, rotation)
    attended = self.attention.masked(queries, keys, v, keep, bias, **self._asked)
    return self._with_cache(attended, k)

  def prefix(self, q, k, v, count, sizes=None, rotation=None):
    """The first `count` (b,) tokens of every image attend to each other."""
    queries, keys = self._rotated(q, k, rotation)
    bias = self.prefix_bias(count, sizes)
    attended = self.attention.prefix(queries, keys, v, count, bias, **self._asked)
    return self._with_cache(attended, k)

  def prefix_cache(self, q, k, v, context, count, sizes=None, rotation=None):
    """The `AttentionCache` of `prefix`, for a (b, n, h, c) context that is known already."""
    if not self.received:
      q = q[:, :1]
    queries, keys = self._rotated(q, k, rotation)
    bias = self.prefix_bias(count, sizes)
    _, attention = self.attention.prefix(queries, keys, v, count, bias, **self._asked)
    return self._with_cache((context, attention), k)[1]

  def prefix_bias(self, count, sizes):
    """The (b, n) bias of `prefix`, 0 beyond the first `count` (b,) tokens; None for none."""
    if sizes is None:
      return None
    return _bias(jnp.where(jnp.arange(sizes.shape[1]) < count[:, None], sizes, 1.0))

  def _rotated(self, q, k, rotation):
    """Queries and keys as they meet in attention; q may be those of the first tokens only."""
    if self.rope is None:
      return q, k
    cosines, sines = self.rope.table() if rotation is None else rotation
    first = (table[..., : q.shape[1], :] for table in (cosines, sines))
    return self.rope.rotate(q, *first), self.rope.rotate(k, cosines, sines)

  @property
  def _asked(self):
    """Keywords for the attention; none for what every attention returns."""
    return {"received": True} if self.received else {}

  def among(self, keep, sizes=None, places=None):
    """The attention function of kept tokens: `masked`, for a (b, n) mask of the patches."""
    keep, rotation = self.with_prefix(keep), self.rotation(places=places)
    return functools.partial(self.masked, keep=keep, sizes=sizes, rotation=rotation)

  def with_prefix(self, keep):
    """(b, n) mask of the patches -> (b, prefix + n); the tokens before the patches are kept."""
    return jnp.concatenate(
      [jnp.ones((keep.shape[0], self.prefix_tokens), keep.dtype), keep], axis=1
    )

  @property
  def compacts(self):
    """Whether `compact` merges and compacts in one product; see `reductions`."""
    return self.merges and hasattr(self.reduction, "destinations")

  @property
  def traces(self):
    """Whether it is known where removed tokens go: `destinations` may be called."""
    return self.compacts or not self.merges

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
    attention_score, sizes = self._seen((stage.cache.score, stage.sizes))
    present = self._seen_mask(stage.present)
    more = {"sizes": sizes} if getattr(self.score, "uses_sizes", False) else {}
    compared = self._compared(self.score, stage, similarity)
    scores = self.score(attention_score, compared, present > 0, self.exponents, **more)
    if not self.prefix_tokens:
      return _from(scores, 1)
    first = 1 if self._removes(stage.x) else self.prefix_tokens
    scores = jnp.where(jnp.arange(scores.shape[1]) < first, jnp.inf, scores)
    if first == self.prefix_tokens:
      return scores
    return jnp.pad(scores, ((0, 0), (self.prefix_tokens - 1, 0)), constant_values=jnp.inf)

  def reduce(self, stage, keep, similarity=None):
    """The tokens and sizes of a `Stage` after it keeps only the tokens of the (b, n) mask `keep`.

    Tokens stay in place; `similarity` as for `scores`.
    """
    if not self.merges:
      return stage.x, stage.sizes
    before = stage.x, stage.sizes
    (x, sizes), present, keep = self._seen(before), *map(self._seen_mask, (stage.present, keep))
    compared = self._compared(self.reduction, stage, similarity)
    reduced = self.reduction(x, sizes, present, keep, compared)
    return tuple(self._put_back(new, old) for new, old in zip(reduced, before, strict=True))

  def moved(self, stage, keep, similarity=None, source=None, gone=None):
    """The places of a `Stage`'s tokens after `reduce`, or after `compact` if `source` is given.

    Places are merged like the tokens themselves.

    Returns:
      (b, n or width, 2); None if positions tell them: nothing is merged, or a merged token keeps
      the place of the token that it was merged into.
    """
    if self.rope is None or not (self.moves and self.merges):
      return None
    places = stage.places
    if places is None:  # of all tokens, at the first stage
      places = jnp.asarray(self.rope.places(), jnp.float32)
      places = jnp.broadcast_to(places, (*stage.x.shape[:2], 2))
    places = dataclasses.replace(stage, x=places)
    if source is None:
      return self.reduce(places, keep, similarity)[0]
    return self.compact(places, keep, source, similarity, gone)[0]

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
      self.destinations(stage, keep, similarity),
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

  def destinations(self, stage, keep, similarity=None):
    """The token of which each one is part after a `Stage`; only if it `traces`.

    Args:
      stage: the `Stage`.
      keep: (b, n) mask.
      similarity: as for `scores`.

    Returns:
      (b, n) int, the index of the token itself if it is kept, n for none.
    """
    n, hidden = keep.shape[1], self.prefix_tokens - 1
    if not self.merges:
      return jnp.where(keep > 0, jnp.arange(n), n)
    compared = self._compared(self.reduction, stage, similarity)
    # Indices among the seen tokens.
    seen = self.reduction.destinations(self._seen_mask(keep), compared)
    if hidden < 0:  # no token before the patches
      seen = _from(seen, 1) - 1
    elif hidden and self._removes(stage.x):
      seen = jnp.where(seen > 0, seen + hidden, seen)
      itself = jnp.broadcast_to(jnp.arange(1, 1 + hidden), (seen.shape[0], hidden))
      seen = jnp.concatenate([seen[:, :1], itself, seen[:, 1:]], axis=1)
    return jnp.where(keep > 0, jnp.arange(n), jnp.minimum(seen, n))

  def _compared(self, part, stage, similarity):
    """The tokens' similarities or keys, whichever a score or a reduction compares."""
    if uses_similarity(part):
      return self.similarity(stage) if similarity is None else similarity
    return self._seen(stage.cache.keys)

  def _removes(self, tokens):
    """Whether scores and reductions see arrays without the tokens that are hidden from them.

    If n is symbolic, the arrays keep these tokens and a mask says that they are not there, as
    converters do not express what would remove them.
    """
    return isinstance(tokens.shape[1], int)

  def _seen_mask(self, mask):
    """A (b, n) mask of tokens as `_seen`; hidden tokens are not there."""
    if self.prefix_tokens < 2 or self._removes(mask):
      return self._seen(mask)
    rows = jnp.arange(mask.shape[1])
    return jnp.where((rows > 0) & (rows < self.prefix_tokens), 0, mask)

  def _seen(self, tree):
    """Arrays (b, n, …) with one token before the patches, see `prefix_tokens` and `_removes`."""
    n = self.prefix_tokens
    if n == 1 or (n and not all(map(self._removes, jax.tree.leaves(tree)))):
      return tree
    if not n:
      return jax.tree.map(lambda a: jnp.concatenate([jnp.ones_like(a[:, :1]), a], axis=1), tree)
    return jax.tree.map(lambda a: jnp.concatenate([a[:, :1], a[:, n:]], axis=1), tree)

  def _put_back(self, seen, all_):
    """The inverse of `_seen`; takes the tokens that it left out from `all_`."""
    if self.prefix_tokens == 1:
      return seen
    if not self.prefix_tokens:
      return _from(seen, 1)
    if not self._removes(all_):
      rows = jnp.arange(all_.shape[1]).reshape(-1, *[1] * (all_.ndim - 2))
      return jnp.where((rows > 0) & (rows < self.prefix_tokens), all_, seen)
    return jnp.concatenate([seen[:, :1], all_[:, 1 : self.prefix_tokens], seen[:, 1:]], axis=1)

  def _with_cache(self, attended, k):
    context, class_attention = attended
    if context.shape[1] != k.shape[1]:  # fewer; "<" has no answer for symbolic sizes
      return context, None
    score = self.score.gather(class_attention, context)
    return context, AttentionCache(score, self.mean_keys(k))

  def mean_keys(self, k):
    """(…, h, c) keys -> (…, c), those of the `AttentionCache`; None if nothing compares them."""
    if self.score.uses_keys or self.reduction.uses_keys:
      return k.astype(jnp.float32).mean(axis=-2)
    return None


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


def first_tokens(tokens, count):
  """The first `count` tokens of (b, n, …); as `_from` if the number of tokens is symbolic."""
  b, n = tokens.shape[:2]
  if isinstance(n, int):
    return tokens[:, :count]
  return _take(tokens, jnp.broadcast_to(jnp.arange(count), (b, count)))


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
