"""Packed execution: runs only the kept tokens of every image, in one compiled program.

Every image keeps its own number of tokens, so a pruned batch is ragged. At each stage the images
are sorted by that number and split into groups. The kept tokens of each image move to the front,
and the group runs at the width of its longest image up to the next stage:

    image 0   c a b . d                image 2   c f . .
    image 1   c . e f g    becomes     image 0   c a b d      c a class token
    image 2   c . . f .                image 1   c e f g      . a pruned token, or padding

Sorting makes the images of a group about equally long, so there is little padding. XLA needs static
shapes: the width is rounded up to one of a ladder of widths, and `lax.switch` selects the branch
compiled for it. The largest width holds every token, so nothing can overflow.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity import keeping
from asvit_jax.sparsity.attending import Attending, Stage
from asvit_jax.sparsity.executions.in_place import before_first_stage, run_up_to
from asvit_jax.sparsity.executions.outputs import Outputs

# Tokens between two rungs. A smaller step rounds up less and compiles longer.
STEP = 16
MOST_WIDTHS = 12
# Images keep so much of the mean, all but a few of DeiT-T's, by merging and by dropping.
LEAST_OF_MEAN, MOST_OF_MEAN = 0.75, 1.4


class Rows(NamedTuple):
  """The tokens of images at a stage, and the stage's decision; the class token is the first row.

  Attributes:
    x: (b, n, d) tokens.
    sizes: (b, n) number of patches that each token stands for; None if nothing is merged.
    position: (b, n) int, the original index of each token in its image.
    keep: (b, n) bool, the tokens that the stage keeps: the first ones if `Attending.compacts`.
  """

  x: jax.Array
  sizes: jax.Array | None
  position: jax.Array
  keep: jax.Array


class Read(NamedTuple):
  """The values that the outputs need from the last block.

  Attributes:
    class_tokens: (b, read, d), the tokens that the prediction reads.
    best: (b, classes), the maximum over the patches' logits; None without an auxiliary head.
    tokens: see `Outputs`; None unless requested.
    positions: see `Outputs`; None unless requested.
  """

  class_tokens: jax.Array
  best: jax.Array | None
  tokens: jax.Array | None
  positions: jax.Array | None


@usual
def packed(model, images, first=None, group=None, step=None, tokens=False):
  """Runs the kept tokens only; equals `in_place.masked` image by image, whatever the batch.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    first: number of images that run at once up to the first stage, a divisor of b; by default all.
    group: number of images that run at once after the first stage, a divisor of b; by default all.
    step: tokens between two widths; `STEP` by default.
    tokens: whether to return the kept tokens; the last block then runs for all of them.

  Returns:
    `Outputs` without scores, and with `tokens` and `positions` if `tokens`.
  """
  rows = in_groups(functools.partial(begin, model), first or len(images), images)
  return run(model, rows, group, step, tokens)


@usual
def begin(model, images):
  """Runs normalised images (b, height, width, 3) up to the first stage; returns its `Rows`."""
  return decide(model, 0, before_first_stage(model, images))


@usual
def run(model, rows, group=None, step=None, tokens=False):
  """Runs `packed` from the first stage on.

  Args:
    model: a `VisionTransformer` with thresholds.
    rows: the `Rows` that `begin` returns.
    group: see `packed`.
    step: see `packed`.
    tokens: see `packed`.

  Returns:
    `Outputs` as for `packed`.
  """
  b, n = rows.keep.shape
  order, keeps = jnp.arange(b), []
  for index in range(model.arch.stages):
    keeps.append(_kept_positions(rows)[jnp.argsort(order), model.arch.prefix_tokens :])
    by_count = jnp.argsort(rows.keep.sum(axis=1))
    mean = model.arch.prefix_tokens + model.counts[index] if model.counts else None
    widths = ladder(n, step or STEP, mean)
    run_stage = functools.partial(_run_stage, model, index, widths, tokens, rows)
    rows, order = in_groups(run_stage, group or b, by_count), order[by_count]
  read = jax.tree.map(lambda a: a[jnp.argsort(order)], rows)  # what the last stage returns
  keep = jnp.stack(keeps, axis=1).astype(jnp.float32)
  logits = model.predict(model.classify(read.class_tokens), lambda: read.best)
  return Outputs(
    logits, tokens=read.tokens, positions=read.positions, keep=keep, kept=keep.sum(axis=-1)
  )


def in_groups(function, size, tree):
  """Calls a function on groups of `size` rows, one group after the other; returns all results.

  Args:
    function: function of a tree of arrays that returns a tree of arrays with the same first axis.
    size: rows per group, a divisor of b.
    tree: tree of arrays (b, …).
  """
  b = len(jax.tree.leaves(tree)[0])
  if size == b:
    return function(tree)
  groups = jax.tree.map(lambda a: a.reshape(b // size, size, *a.shape[1:]), tree)
  return jax.tree.map(lambda a: a.reshape(b, *a.shape[2:]), jax.lax.map(function, groups))


def ladder(top, step, mean=None):
  """The widths to compile, in increasing order; the last one holds every token.

  Args:
    top: the last width.
    step: tokens between two widths; a multiple of it is used if `MOST_WIDTHS` would be exceeded.
    mean: mean number of tokens per image, if known. Widths far below it, and all widths far above
      it but the last, are then left out, so that fewer are compiled.
  """
  step *= max(1, -(-top // (step * (MOST_WIDTHS + 1))))
  # None that is hardly less than the last.
  widths = [*range(step, max(step, top - step // 3), step), top][-MOST_WIDTHS:]
  if mean is None:
    return widths
  first, last = np.searchsorted(widths, (LEAST_OF_MEAN * mean, MOST_OF_MEAN * mean))
  return sorted({*widths[first : last + 1], top})


def decide(model, index, stage, position=None):
  """The `Rows` of the `Stage` with this index; `position` as in `Rows`, by default in order."""
  attending = Attending.of(model.arch)
  similarity = attending.similarity(stage)
  keep = keeping.over(
    attending.scores(stage, similarity),
    stage.present,
    model.thresholds[index],
    model.arch.count_multiple,
  )
  n = keep.shape[1]
  if position is None:
    position = jnp.broadcast_to(jnp.arange(n), keep.shape)
  if not attending.compacts:
    return Rows(*attending.reduce(stage, keep, similarity), position, keep)
  source = _kept_first(keep)
  x, sizes = attending.compacted(stage, keep, source, similarity)
  position = jnp.take_along_axis(position, jnp.minimum(source, n - 1), axis=1)
  return Rows(x, sizes, position, source < n)


def _run_stage(model, index, widths, tokens, rows, images):
  """Runs a group of images after a stage, at the smallest width that holds their kept tokens.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage.
    widths: the ladder of widths.
    tokens: see `packed`.
    rows: `Rows` of all images.
    images: (g,) indices of the images of the group.

  Returns:
    The group's `Rows` at the next stage; after the last stage, its `Read`.
  """
  keep = rows.keep[images]
  # Where tokens are compact already, rows of images are copied whole.
  source = None
  if not Attending.of(model.arch).compacts:
    source = jnp.minimum(_kept_first(keep), keep.shape[1] - 1)
  count = keep.sum(axis=1)
  rung = jnp.searchsorted(jnp.array(widths), count.max())
  branches = [functools.partial(_run_at, model, index, width, tokens) for width in widths]
  return jax.lax.switch(rung, branches, rows, images, source, count)


def _run_at(model, index, width, tokens, rows, images, source, count):
  """`_run_stage` at a static width: row j of an image is filled from its row `source[j]`.

  Without `source`, the first rows are used as they are.
  """
  n = rows.keep.shape[1]

  def lengthened(a, value=0):  # the branches of a switch must agree in shape
    more = [(0, 0), (0, n - width)] + [(0, 0)] * (a.ndim - 2)
    return jnp.pad(a, more, constant_values=value)

  # Straight from all images: to sort them first would be one more copy.
  x, sizes, position = jax.tree.map(
    lambda a: a[images, :width] if source is None else a[images[:, None], source[:, :width]],
    (rows.x, rows.sizes, rows.position),
  )
  attend = functools.partial(Attending.of(model.arch).prefix, count=count, sizes=sizes)
  present = jnp.arange(width) < count[:, None]
  x, evidence = run_up_to(model, index + 1, x, attend)
  if index == model.arch.stages - 1:
    read = _read(model, x, attend, present, tokens)
    if not tokens:
      return read
    positions = lengthened(jnp.where(present, position, -1), -1)
    return read._replace(tokens=lengthened(read.tokens), positions=positions)
  rows = decide(model, index + 1, Stage(x, sizes, present, evidence), position)
  # Reductions divide by sizes, and a row that is not finite would spoil the rest of its image.
  sizes = None if rows.sizes is None else lengthened(rows.sizes, 1)
  return jax.tree.map(lengthened, rows._replace(sizes=None))._replace(sizes=sizes)


def _read(model, x, attend, present, tokens):
  """Runs the last block; returns a `Read` without positions."""
  last = model.blocks[-1]
  aux_head, prefix = model.arch.aux_head, model.arch.prefix_tokens
  after = last(x, attend)[0] if aux_head or tokens else None
  normed = model.norm(after) if tokens else None
  if not aux_head:
    return Read(last.rows(x, x[:, : model.arch.read_tokens], attend), None, normed, None)
  of_patches = model.classify_patches(after[:, prefix:])
  of_patches = jnp.where(present[:, prefix:, None], of_patches, -jnp.inf)
  return Read(after[:, :1], of_patches.max(axis=1, initial=-jnp.inf), normed, None)


def _kept_first(keep):
  """(b, n) bool -> (b, n) indices of the kept tokens, in order, padded with n."""
  n = keep.shape[1]

  def counted(keep):
    before = jnp.cumsum(keep, axis=1)[..., None] <= jnp.arange(n)  # (b, of, n)
    return _count(before)

  def ordered(keep):  # which a CPU's compiler is done with in a quarter of the time
    return jnp.sort(jnp.where(keep, jnp.arange(n), n), axis=1)

  return jax.lax.platform_dependent(keep, cpu=ordered, default=counted)


def _kept_positions(rows):
  """(b, n) bool mask of the kept tokens, by their original index in the image."""
  at = rows.position[..., None] == jnp.arange(rows.position.shape[1])  # (b, of, n)
  return _count(at & rows.keep[..., None]) > 0


def _count(of):
  """(b, of, n) bool -> (b, n) counts over `of`. Vectorised, unlike a scatter."""
  return of.astype(jnp.int32).sum(axis=1)
