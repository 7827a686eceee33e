"""Packed execution: the kept tokens of a whole batch, back to back, in one compiled program.

Every image keeps its own number of tokens, so a pruned batch is ragged. After each stage the kept
tokens move to the front of one buffer, and the next blocks run on its used rows:

    image 0   c a b . d                  c a b d | c e | c f g          c a class token
    image 1   c . e . .    packed to     start 0       4     6          . a pruned token
    image 2   c f . g .                  count 4       2     3          9 rows instead of 15

Everything in a block acts on single tokens, except attention, which gathers the rows of each image
to (b, width), and its result back. XLA needs static shapes, so the rows in use are rounded up to a
rung of a ladder of lengths, and the longest image to one of widths; `lax.switch` picks the branch
that was compiled for the rung. The top rung holds every token, so nothing can overflow.

A single image needs no buffer: it is compacted to a rung by itself.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from asvit_jax import attention
from asvit_jax.executions import Outputs, predict

# Rungs of the ladders, evenly spaced. More of them round up less and compile longer.
LENGTHS = 16
WIDTHS = 6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layout:
  """Which row of the buffer is which token; rows from `count.sum()` on are not in use.

  Attributes:
    image: (rows,) the image of every row.
    position: (rows,) the row's place in its image, 0 for the class token.
    start: (b,) the first row of every image, its class token.
    count: (b,) the rows of every image.
  """

  image: jax.Array
  position: jax.Array
  start: jax.Array
  count: jax.Array


def packed(model, images):
  """Runs the kept tokens only; equals `executions.masked` image by image, whatever the batch.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.

  Returns:
    `Outputs` without tokens and scores.
  """
  x = model.embed(images)
  for block in model.blocks[: model.arch.prune_before[0]]:
    x, scores = block(x, attention.dense)
  # The class token's own score is infinite: it always stays.
  scores = jnp.pad(scores, ((0, 0), (1, 0)), constant_values=jnp.inf)
  run = _run_one if len(images) == 1 else _run_batch
  logits, keep = run(model, x, scores)
  return Outputs(
    logits,
    class_logits=None,
    aux_logits=None,
    tokens=None,
    keep=keep,
    scores=None,
    kept=keep.sum(axis=-1),
  )


def _run_batch(model, x, scores):
  """The blocks after the first threshold, for a batch.

  All stages are one `lax.scan`, and the blocks of a stage a loop over stacked parameters, so that
  every branch of the ladder is compiled once.

  Args:
    model: a `VisionTransformer` with thresholds.
    x: (b, n, d) tokens before the first threshold, the class token first.
    scores: (b, n) their scores.

  Returns:
    (b, classes) logits and (b, stages, n - 1) keep mask.
  """
  b, n, d = x.shape
  row = jnp.arange(b * n)
  layout = Layout(row // n, row % n, start=jnp.arange(b) * n, count=jnp.full(b, n))
  lengths, widths = _ladder(b * n, LENGTHS), _ladder(n, WIDTHS)
  bounds = jnp.array([*model.arch.prune_before, model.arch.depth]) - model.arch.prune_before[0]
  graphdef, stacked = _stack(model.blocks[model.arch.prune_before[0] :])

  def run_blocks(length, shortest, x, source, layout, begin, end):
    """Blocks `begin` to `end` on `length` rows, of which more than `shortest` are in use."""
    # The longest image is no shorter than the mean one: narrower attention is never asked for.
    fitting = [w for w in widths if w * b > shortest]
    mix = functools.partial(
      attention.packed, layout=layout, widths=fitting, rung=_rung(layout.count.max(), fitting)
    )

    def run_block(i, carry):
      params = jax.tree.map(lambda p: jax.lax.dynamic_index_in_dim(p, i, keepdims=False), stacked)
      return nnx.merge(graphdef, params)(carry[0], mix)

    x, scores = jax.lax.fori_loop(begin, end, run_block, (x[source[:length]], jnp.zeros(length)))
    return _lengthen(x, b * n), _lengthen(scores, b * n)

  branches = [
    functools.partial(run_blocks, length, shortest)
    for shortest, length in itertools.pairwise([0, *lengths])
  ]

  def run_stage(carry, stage):
    x, scores, layout = carry
    threshold, begin, end = stage
    source, layout = _pack((scores > threshold) & (row < layout.count.sum()), layout)
    total = layout.count.sum()
    rung = _rung(total, lengths)
    x, scores = jax.lax.switch(rung, branches, x, source, layout, begin, end)
    keep = _mask(layout.image * n + layout.position, total, b * n)
    return (x, scores, layout), keep.reshape(b, n)[:, 1:]

  (x, _, layout), keep = jax.lax.scan(
    run_stage,
    (x.reshape(b * n, d), scores.reshape(b * n), layout),
    (model.thresholds[...], bounds[:-1], bounds[1:]),
  )
  return _classify(model, x, layout, lengths), jnp.swapaxes(keep, 0, 1)


def _run_one(model, x, scores):
  """The blocks after the first threshold, for a single image: nothing to pack, only to compact.

  Args and results are those of `_run_batch` with b = 1. There is no gather inside attention, and
  the blocks are unrolled, because with few rows a copy of the parameters would cost as much as
  using them.
  """
  n = x.shape[1]
  row = jnp.arange(n)
  position, count = row, n
  x, scores = x[0], scores[0]
  lengths = _ladder(n, LENGTHS)
  keeps = []

  def run_blocks(length, blocks, x, source, count):
    x = x[source[:length]][None]
    mix = functools.partial(attention.prefix, count=count[None])
    for block in blocks:
      x, scores = block(x, mix)
    return _lengthen(x[0], n), _lengthen(scores[0], n)

  bounds = itertools.pairwise([*model.arch.prune_before, model.arch.depth])
  for (begin, end), threshold in zip(bounds, model.thresholds[...], strict=True):
    keep = (scores > threshold) & (row < count)
    source, count = _kept_first(keep), keep.sum()
    position = position[source]
    branches = [functools.partial(run_blocks, w, model.blocks[begin:end]) for w in lengths]
    x, scores = jax.lax.switch(_rung(count, lengths), branches, x, source, count)
    keeps.append(_mask(position, count, n)[1:])
  layout = Layout(jnp.zeros_like(row), position, start=jnp.zeros(1, int), count=count[None])
  return _classify(model, x, layout, lengths), jnp.stack(keeps)[None]


def _classify(model, x, layout, lengths):
  """(rows, d) tokens after the last block -> (b, classes) logits."""
  class_logits = model.classify(x[layout.start])
  if not model.arch.aux_head:
    return class_logits
  total = layout.count.sum()
  is_patch = (layout.position > 0) & (jnp.arange(len(x)) < total)

  def best_of(length):
    logits = model.classify_patches(x[:length])
    logits = jnp.where(is_patch[:length, None], logits, -jnp.inf)
    return jax.ops.segment_max(logits, layout.image[:length], num_segments=len(layout.start))

  branches = [functools.partial(best_of, length) for length in lengths]
  return predict(class_logits, jax.lax.switch(_rung(total, lengths), branches))


def _rung(size, ladder):
  """Index of the smallest rung that holds `size`, a scalar array."""
  return jnp.searchsorted(jnp.array(ladder), size)


def _ladder(top, rungs):
  """Evenly spaced sizes up to `top`, which is the last."""
  return sorted({-(-top * (i + 1) // rungs) for i in range(rungs)})


def _pack(keep, layout):
  """The layout after dropping rows; also, for every new row, the row that it was."""
  source = _kept_first(keep)
  count = jnp.zeros_like(layout.count).at[layout.image].add(keep)
  start = jnp.cumsum(count) - count
  return source, Layout(layout.image[source], layout.position[source], start, count)


def _mask(token, used, tokens):
  """(rows,) token of every row -> (tokens,) float32, 1 for those of the first `used` rows."""
  token = jnp.where(jnp.arange(len(token)) < used, token, tokens)
  return jnp.zeros(tokens).at[token].set(1, mode="drop")


def _kept_first(keep):
  """(rows,) keep -> (rows,) indices of the kept rows, in order; 0 after them."""
  rows = len(keep)
  destination = jnp.where(keep, jnp.cumsum(keep) - 1, rows)
  return jnp.zeros(rows, jnp.int32).at[destination].set(jnp.arange(rows), mode="drop")


def _lengthen(x, rows):
  """Pads the first axis to `rows`: the branches of a switch must agree in shape."""
  return jnp.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


def _stack(blocks):
  """(graphdef, parameters stacked along a new first axis) of blocks of the same shape."""
  splits = [nnx.split(block) for block in blocks]
  return splits[0][0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s for _, s in splits])
