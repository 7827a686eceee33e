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

import functools
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from asvit_jax.sparsity.attending import Attending, Stage
from asvit_jax.sparsity.executions.layout import (
  Layout,
  kept_first,
  ladder,
  lengthen,
  mask_of,
  pack,
  rows_of_images,
  rung,
)
from asvit_jax.sparsity.executions.outputs import Outputs

# Rungs of the ladders, evenly spaced. More of them round up less and compile longer.
LENGTHS = 16
WIDTHS = 6


def packed(model, images, lengths=None, widths=None):
  """Runs the kept tokens only; equals `in_place.masked` image by image, whatever the batch.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    lengths: rungs of the ladder of lengths; `LENGTHS` by default.
    widths: rungs of the ladder of widths; `WIDTHS` by default.

  Returns:
    `Outputs` without tokens and scores.
  """
  attending = Attending.of(model.arch)
  x = model.embed(images)
  for block in model.blocks[: model.arch.prune_before[0]]:
    x, evidence = block(x, attending.dense)
  b, n, _ = x.shape
  stage = Stage(x, attending.first_sizes(b, n), jnp.ones((b, n), bool), evidence)
  run = run_one if b == 1 else run_batch
  logits, keep = run(model, stage, lengths or LENGTHS, widths or WIDTHS)
  return Outputs(logits, keep=keep, kept=keep.sum(axis=-1))


def run_batch(model, stage, lengths, widths):
  """The blocks after the first threshold, for a batch.

  All stages are one `lax.scan`, and the blocks of a stage a loop over stacked parameters, so that
  every branch of the ladder is compiled once.

  Args:
    model: a `VisionTransformer` with thresholds.
    stage: the first `Stage`, at which all tokens are present.
    lengths: rungs of the ladder of lengths.
    widths: rungs of the ladder of widths.

  Returns:
    (b, classes) logits and (b, stages, n - 1) keep mask.
  """
  b, n, _ = stage.x.shape
  row = jnp.arange(b * n)
  layout = Layout(row // n, row % n, start=jnp.arange(b) * n, count=jnp.full(b, n))
  lengths, widths = ladder(b * n, lengths), ladder(n, widths)
  attending = Attending.of(model.arch)
  first, end = model.arch.prune_before[0], model.arch.depth
  if not model.arch.aux_head:  # of the last block the class tokens alone are read
    end -= 1
  bounds = jnp.array([*model.arch.prune_before, end]) - first
  graphdef, stacked = _stack(model.blocks[first : max(end, first + 1)])

  def run_blocks(length, shortest, x, sizes, source, layout, begin, end):
    """Blocks `begin` to `end` on `length` rows, of which more than `shortest` are in use."""
    # The longest image is no shorter than the mean one: narrower attention is never asked for.
    fitting = [w for w in widths if w * b > shortest]
    x, sizes = jax.tree.map(lambda rows: rows[source[:length]], (x, sizes))
    attend = functools.partial(
      _attend,
      attending,
      sizes=sizes,
      layout=layout,
      widths=fitting,
      rung=rung(layout.count.max(), fitting),
    )

    def run_block(i, carry):
      params = jax.tree.map(lambda p: jax.lax.dynamic_index_in_dim(p, i, keepdims=False), stacked)
      return nnx.merge(graphdef, params)(carry[0], attend)

    unread = jax.tree.map(lambda a: jnp.zeros((length, *a.shape[2:]), a.dtype), stage.evidence)
    x, left = jax.lax.fori_loop(begin, end, run_block, (x, unread))
    return jax.tree.map(lambda rows: lengthen(rows, b * n), (x, sizes, left))

  branches = [
    functools.partial(run_blocks, length, shortest)
    for shortest, length in itertools.pairwise([0, *lengths])
  ]

  def run_stage(carry, of_stage):
    (x, sizes, evidence), layout = carry
    threshold, begin, end = of_stage
    keep, row, x, sizes = _decide(attending, x, sizes, evidence, threshold, layout, widths)
    source, layout = pack(keep, layout)
    source = row[source]
    total = layout.count.sum()
    rows = jax.lax.switch(rung(total, lengths), branches, x, sizes, source, layout, begin, end)
    keep = mask_of(layout.image * n + layout.position, total, b * n)
    return (rows, layout), keep.reshape(b, n)[:, 1:]

  x, sizes, evidence = jax.tree.map(
    lambda tokens: tokens.reshape(b * n, *tokens.shape[2:]), (stage.x, stage.sizes, stage.evidence)
  )
  ((x, sizes, _), layout), keep = jax.lax.scan(
    run_stage,
    ((x, sizes, evidence), layout),
    (model.thresholds[...], bounds[:-1], bounds[1:]),
  )
  if model.arch.aux_head:
    logits = _classify_all(model, x, layout, lengths)
  else:
    logits = model.classify(_last_block(model, attending, x, sizes, layout, lengths, widths))
  return logits, jnp.swapaxes(keep, 0, 1)


def run_one(model, stage, lengths, widths):
  """The blocks after the first threshold, for a single image: nothing to pack, only to compact.

  Args and results are those of `run_batch` with b = 1; widths are not read. There is no gather
  inside attention, and the blocks are unrolled, because with few rows a copy of the parameters
  would cost as much as using them.
  """
  del widths
  n = stage.x.shape[1]
  row = jnp.arange(n)
  lengths = ladder(n, lengths)
  attending = Attending.of(model.arch)
  depth, thresholds = model.arch.depth, model.thresholds[...]

  def run_blocks(length, begin, end, threshold, x, sizes, source, count):
    """Blocks `begin` to `end` on `length` rows, and what the stage after them does with these."""
    x, sizes = jax.tree.map(lambda rows: rows[:, source[:length]], (x, sizes))
    attend = functools.partial(attending.prefix, count=count[None], sizes=sizes)
    for block in model.blocks[begin:end]:
      if block is model.blocks[-1] and not model.arch.aux_head:
        return block.rows(x, x[:, :1], attend)[:, 0]
      x, evidence = block(x, attend)
    if threshold is None:
      return lengthen(x[0], n)
    present = (jnp.arange(length) < count)[None]
    decided = _decided(attending, Stage(x, sizes, present, evidence), threshold)
    return jax.tree.map(lambda rows: lengthen(rows[0], n)[None], decided)

  position, keeps = row, []
  keep, x, sizes = _decided(attending, stage, thresholds[0])
  for begin, end, after in zip(
    model.arch.prune_before,
    [*model.arch.prune_before[1:], depth],
    [*thresholds[1:], None],
    strict=True,
  ):
    source, count = kept_first(keep[0]), keep.sum()
    position = position[source]
    keeps.append(mask_of(position, count, n)[1:])
    branches = [functools.partial(run_blocks, w, begin, end, after) for w in lengths]
    left = jax.lax.switch(rung(count, lengths), branches, x, sizes, source, count)
    if after is not None:
      keep, x, sizes = left
  if model.arch.aux_head:
    layout = Layout(jnp.zeros_like(row), position, start=jnp.zeros(1, int), count=count[None])
    logits = _classify_all(model, left, layout, lengths)
  else:
    logits = model.classify(left)
  return logits, jnp.stack(keeps)[None]


def _attend(attending, q, k, v, sizes, layout, widths, rung):
  """Attention within every image of a packed batch.

  Args:
    attending: an `Attending`.
    q: (rows, h, c) queries of all images, back to back.
    k: (rows, h, c) keys.
    v: (rows, h, c) values.
    sizes: (rows,), or None.
    layout: a `Layout`.
    widths: ladder of static widths.
    rung: () int32, index of the smallest of them that holds the longest image.

  Returns:
    (rows, h, c) context and `Evidence` of rows.
  """
  rows = len(q)
  image = layout.image[:rows]
  place = jnp.arange(rows) - layout.start[image]  # in its image

  def attend(width, *of_rows):
    index = rows_of_images(layout, width, rows)
    q, k, v, sizes = jax.tree.map(lambda x: x[index], of_rows)
    attended = attending.prefix(q, k, v, layout.count, sizes)
    back = image * width + jnp.minimum(place, width - 1)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[back], attended)

  branches = [functools.partial(attend, width) for width in widths]
  return jax.lax.switch(rung, branches, q, k, v, sizes)


def _decide(attending, x, sizes, evidence, threshold, layout, widths):
  """What a stage does with the rows before it.

  Returns:
    (rows,) bool, which of them stay; (rows,) int, the row of each in what follows; x and sizes as
    the reduction leaves them.
  """
  rows = jnp.arange(len(x))
  used = rows < layout.count.sum()
  if not (attending.merges or attending.score.uses_keys):  # each token speaks for itself
    gathered = jax.tree.map(lambda a: a[None], evidence.gathered)
    scores = attending.score(gathered, None, used[None], attending.exponents)[0]
    scores = jnp.where(layout.position == 0, jnp.inf, scores)
    return (scores > threshold) & used, rows, x, sizes

  n = len(x) // len(layout.count)

  def decide(width):
    index = rows_of_images(layout, width, len(x))
    of_images = jax.tree.map(lambda a: a[index], (x, sizes, evidence))
    present = jnp.arange(width) < layout.count[:, None]
    stage = Stage(of_images[0], of_images[1], present, of_images[2])
    return jax.tree.map(lambda a: flat(a, width), _decided(attending, stage, threshold))

  def flat(a, width):
    """(b, width, …) -> (rows, …), n an image: cheaper than a gather back to where they were."""
    a = jnp.pad(a, [(0, 0), (0, n - width)] + [(0, 0)] * (a.ndim - 2))
    return a.reshape(-1, *a.shape[2:])

  branches = [functools.partial(decide, width) for width in widths]
  keep, x, sizes = jax.lax.switch(rung(layout.count.max(), widths), branches)
  row = layout.image * n + jnp.minimum(rows - layout.start[layout.image], n - 1)
  return keep[row] & used, row, x, sizes


def _decided(attending, stage, threshold):
  """What a `Stage` of images keeps, (b, n) bool, and its tokens and sizes as they go on."""
  keep = (attending.scores(stage) > threshold) & stage.present
  return keep, *attending.reduce(stage, keep)


def _last_block(model, attending, x, sizes, layout, lengths, widths):
  """(rows, d) tokens before the last block -> (b, d) class tokens after it."""
  total = layout.count.sum()

  def run(length, shortest):
    fitting = [w for w in widths if w * len(layout.count) > shortest]

    def attend(q, k, v):
      def of_width(width):
        index = rows_of_images(layout, width, length)
        of_images = k[index], v[index]
        of_sizes = None if sizes is None else sizes[index]
        return attending.prefix(q[:, None], *of_images, layout.count, of_sizes)[0][:, 0]

      branches = [functools.partial(of_width, width) for width in fitting]
      return jax.lax.switch(rung(layout.count.max(), fitting), branches), None

    return model.blocks[-1].rows(x[:length], x[layout.start], attend)

  branches = [
    functools.partial(run, length, shortest)
    for shortest, length in itertools.pairwise([0, *lengths])
  ]
  return jax.lax.switch(rung(total, lengths), branches)


def _classify_all(model, x, layout, lengths):
  """(rows, d) tokens after the last block -> (b, classes) logits of both heads."""
  total = layout.count.sum()
  is_patch = (layout.position > 0) & (jnp.arange(len(x)) < total)

  def best_of(length):
    logits = model.classify_patches(x[:length])
    logits = jnp.where(is_patch[:length, None], logits, -jnp.inf)
    return jax.ops.segment_max(logits, layout.image[:length], num_segments=len(layout.start))

  branches = [functools.partial(best_of, length) for length in lengths]
  return model.predict(
    model.classify(x[layout.start]), lambda: jax.lax.switch(rung(total, lengths), branches)
  )


def _stack(blocks):
  """(graphdef, parameters stacked along a new first axis) of blocks of the same shape."""
  splits = [nnx.split(block) for block in blocks]
  return splits[0][0], jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s for _, s in splits])
