"""Packed execution: every image's kept tokens and no others, in one compiled program.

Every image keeps its own number of tokens, so a pruned batch is ragged. At each stage the images
are sorted by that number and taken in groups; the kept tokens of each move to the front, and the
group runs at the width of its longest image, up to the next stage:

    image 0   c a b . d                image 2   c f . .
    image 1   c . e f g    becomes     image 0   c a b d      c a class token
    image 2   c . . f .                image 1   c e f g      . a token that is not there

Sorted, the images of a group are about equally long, so little is computed for nothing. XLA needs
static shapes: the width is rounded up to a rung of a ladder, and `lax.switch` picks the branch that
was compiled for it. The top rung holds every token, so nothing can overflow.
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
LEAST_OF_MEAN, MOST_OF_MEAN = 0.6, 1.4


class Rows(NamedTuple):
  """The tokens of images where a stage has decided; the class token is the first row.

  Attributes:
    x: (b, n, d).
    sizes: (b, n) patches that each stands for; None where nothing is merged.
    position: (b, n) int, which token of the image each was at first.
    keep: (b, n) bool, which of them go on: the first ones where `Attending.compacts`.
  """

  x: jax.Array
  sizes: jax.Array | None
  position: jax.Array
  keep: jax.Array


class Read(NamedTuple):
  """What is read of images after the last block.

  Attributes:
    class_tokens: (b, read, d), those that the prediction reads.
    best: (b, classes), the best of the patches' logits; None without auxiliary head.
    tokens: see `Outputs`; None where nobody wants them.
    positions: likewise.
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
    first: how many run at once up to the first stage, a divisor of b; by default all.
    group: how many run at once from then on, a divisor of b; by default all.
    step: tokens between two widths; `STEP` by default.
    tokens: whether the kept tokens are wanted; their last block then runs for all of them.

  Returns:
    `Outputs` without scores, and with `tokens` and `positions` where they are wanted.
  """
  rows = in_groups(functools.partial(begin, model), first or len(images), images)
  return run(model, rows, group, step, tokens)


@usual
def begin(model, images):
  """The `Rows` at the first stage of images (b, height, width, 3), normalised."""
  return decide(model, 0, before_first_stage(model, images))


@usual
def run(model, rows, group=None, step=None, tokens=False):
  """`packed` from the first stage on.

  Args:
    model: a `VisionTransformer` with thresholds.
    rows: of `begin`.
    group: see `packed`.
    step: see `packed`.
    tokens: see `packed`.

  Returns:
    `Outputs` as of `packed`.
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
  """A function of arrays (b, …), called with so many at a time, one group after the other.

  Args:
    function: of a tree of arrays; the arrays that it returns have as long a first axis.
    size: a divisor of b.
    tree: of arrays (b, …).
  """
  b = len(jax.tree.leaves(tree)[0])
  if size == b:
    return function(tree)
  groups = jax.tree.map(lambda a: a.reshape(b // size, size, *a.shape[1:]), tree)
  return jax.tree.map(lambda a: a.reshape(b, *a.shape[2:]), jax.lax.map(function, groups))


def ladder(top, step, mean=None):
  """The widths to compile, the last of which holds every token.

  Args:
    top: the last.
    step: tokens between two, or a multiple of it where there were more than `MOST_WIDTHS`.
    mean: tokens that images have on average, where that is known: then there is no width far below
      it, and of those far above only one besides the last. Fewer to compile.
  """
  step *= max(1, -(-top // (step * (MOST_WIDTHS + 1))))
  widths = [*range(step, top, step), top][-MOST_WIDTHS:]
  if mean is None:
    return widths
  first, last = np.searchsorted(widths, (LEAST_OF_MEAN * mean, MOST_OF_MEAN * mean))
  above = widths[last + 1 : -1]
  return sorted({*widths[first : last + 1], *above[len(above) // 2 :][:1], top})


def decide(model, index, stage, position=None):
  """The `Rows` of a `Stage`, the one with this index; `position` as there, by default in order."""
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
  """The blocks after a stage, at the least width that holds what it keeps of each of some images.

  Args:
    model: a `VisionTransformer`.
    index: of the stage.
    widths: ladder of them.
    tokens: see `packed`.
    rows: `Rows` of all images.
    images: (g,) which of them run.

  Returns:
    Their `Rows` at the next stage; after the last one their `Read`.
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
  """`_run_stage` at a static width: row j of an image becomes what its row `source[j]` is.

  Without `source`, the rows are the first ones, as they are.
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
  """The last block, and what is read of its tokens; a `Read` without positions."""
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
  """(b, n) bool -> (b, n) the indices of those kept, in order, then n."""
  n = keep.shape[1]

  def counted(keep):
    before = jnp.cumsum(keep, axis=1)[..., None] <= jnp.arange(n)  # (b, of, n)
    return _count(before)

  def ordered(keep):  # which a CPU's compiler is done with in a quarter of the time
    return jnp.sort(jnp.where(keep, jnp.arange(n), n), axis=1)

  return jax.lax.platform_dependent(keep, cpu=ordered, default=counted)


def _kept_positions(rows):
  """(b, n) bool, which tokens of an image go on, by their position at first."""
  at = rows.position[..., None] == jnp.arange(rows.position.shape[1])  # (b, of, n)
  return _count(at & rows.keep[..., None]) > 0


def _count(of):
  """(b, of, n) bool -> (b, n). A loop of vector instructions, where a scatter is one of calls."""
  return of.astype(jnp.int32).sum(axis=1)
