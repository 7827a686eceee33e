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
from asvit_jax.sparsity.executions.in_place import (
  Outputs,
  before_first_stage,
  run_to_stage,
  tokens_above,
)
from asvit_jax.sparsity.pruning import Pruning, Stage
from asvit_jax.sparsity.sources import first_sources, follow

# Tokens between two widths. A smaller step leaves less padding and takes longer to compile.
STEP = 16
MOST_WIDTHS = 12
# Nearly all images of DeiT-T keep a number of tokens between these multiples of the mean, whether
# removed tokens are merged or dropped.
LEAST_OF_MEAN, MOST_OF_MEAN = 0.75, 1.4


class PackedTokens(NamedTuple):
  """The tokens of images at a stage, and the mask of the stage; the class token is the first row.

  Attributes:
    x: (b, n, d) tokens.
    sizes: (b, n) number of patches that each token stands for; None if nothing is merged.
    position: (b, n) int, the original index of each token in its image.
    keep: (b, n) bool, the tokens that the stage keeps: the first ones if `Pruning.compacts`.
    sources: (b, patches), see `Outputs`, after the stage; None unless requested.
    places: (b, n, 2), see `Stage`.
  """

  x: jax.Array
  sizes: jax.Array | None
  position: jax.Array
  keep: jax.Array
  sources: jax.Array | None = None
  places: jax.Array | None = None


class HeadInputs(NamedTuple):
  """The values of the last block that the heads and the outputs need.

  Attributes:
    read: (b, read, d), what the prediction reads, see `VisionTransformer.pool`.
    best: (b, classes), the maximum over the patches' logits; None without an auxiliary head.
    tokens: (b, n, d), see `Outputs`; None unless requested.
    positions: (b, n), see `Outputs`; None unless requested.
    sources: (b, patches), see `Outputs`; None unless requested.
  """

  read: jax.Array
  best: jax.Array | None
  tokens: jax.Array | None
  positions: jax.Array | None
  sources: jax.Array | None = None


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
    `Outputs` without scores, and with `tokens`, `positions` and `sources` if `tokens`.
  """
  start = functools.partial(start_packed, model, tokens=tokens)
  return finish_packed(
    model, run_in_groups(start, first or len(images), images), group, step, tokens
  )


@usual
def start_packed(model, images, tokens=False):
  """Runs `packed` up to the first stage, and applies that stage.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    tokens: see `packed`.

  Returns:
    The `PackedTokens` of the first stage.
  """
  sources = first_sources(images.shape[0], model.arch.prefix_tokens, model.arch.patches)
  stage = before_first_stage(model, images)
  return apply_stage(model, 0, stage, sources=sources if tokens else None)


@usual
def finish_packed(model, packed_tokens, group=None, step=None, tokens=False):
  """Runs `packed` from the first stage on.

  Args:
    model: a `VisionTransformer` with thresholds.
    packed_tokens: the `PackedTokens` that `start_packed` returns, (b, n, …), for the same `tokens`.
    group: see `packed`.
    step: see `packed`.
    tokens: see `packed`.

  Returns:
    `Outputs` as for `packed`.
  """
  b, n = packed_tokens.keep.shape
  prefix, stages = model.arch.prefix_tokens, model.arch.stages
  order, keeps, at_stage = jnp.arange(b), [], packed_tokens
  for index in range(stages):
    keeps.append(kept_positions(at_stage.position, at_stage.keep)[jnp.argsort(order), prefix:])
    by_count = jnp.argsort(at_stage.keep.sum(axis=1))
    mean = prefix + model.counts[index] if model.counts else None
    widths = choose_widths(n, step or STEP, mean)
    run_width = (
      functools.partial(_run_to_next_stage, model, index)
      if index < stages - 1
      else functools.partial(_run_to_heads, model, tokens)
    )
    run_group = functools.partial(_run_group, model, run_width, widths, at_stage)
    at_stage, order = run_in_groups(run_group, group or b, by_count), order[by_count]
  head_inputs = jax.tree.map(lambda a: a[jnp.argsort(order)], at_stage)
  return predict_from(model, head_inputs, keeps)


def predict_from(model, head_inputs, keeps):
  """The `Outputs` of `packed`, from `HeadInputs` and a list of the stages' (b, patches) masks."""
  keep = jnp.stack(keeps, axis=1).astype(jnp.float32)
  logits = model.predict(model.classify(head_inputs.read), lambda: head_inputs.best)
  return Outputs(
    logits,
    tokens=head_inputs.tokens,
    positions=head_inputs.positions,
    sources=head_inputs.sources,
    keep=keep,
    kept=keep.sum(axis=-1),
  )


def run_in_groups(function, size, tree):
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


def choose_widths(top, step, mean=None):
  """The widths to compile, in increasing order; the last one holds every token.

  Args:
    top: the last width.
    step: tokens between two widths; a multiple of it is used if `MOST_WIDTHS` would be exceeded.
    mean: mean number of tokens per image, if known. Widths far below it, and all widths far above
      it but the last, are then left out, so that fewer are compiled.
  """
  step *= max(1, -(-top // (step * (MOST_WIDTHS + 1))))
  # A width hardly less than the last one would save nothing.
  widths = [*range(step, max(step, top - step // 3), step), top][-MOST_WIDTHS:]
  if mean is None:
    return widths
  first, last = np.searchsorted(widths, (LEAST_OF_MEAN * mean, MOST_OF_MEAN * mean))
  return sorted({*widths[first : last + 1], top})


def apply_stage(model, index, stage, position=None, sources=None, decided=None):
  """Scores the tokens at a stage, chooses those to keep, and reduces the others.

  Args:
    model: a `VisionTransformer` with thresholds.
    index: index of the stage.
    stage: the `Stage`, (b, n, …).
    position: (b, n), see `PackedTokens`; by default the tokens are in their original order.
    sources: (b, patches) sources before the stage, None unless requested.
    decided: the result of `tokens_above`, if it was already called.

  Returns:
    The `PackedTokens`, (b, n, …).
  """
  pruning = Pruning.of(model.arch)
  keep, similarity = decided or tokens_above(model, index, stage)
  n = keep.shape[1]
  if position is None:
    position = jnp.broadcast_to(jnp.arange(n), keep.shape)
  sources = follow(sources, pruning, stage, keep, similarity, position)
  if not pruning.compacts:
    places = pruning.moved(stage, keep, similarity)
    x, sizes = pruning.reduce(stage, keep, similarity)
    return PackedTokens(x, sizes, position, keep, sources, places)
  source = kept_first(keep)
  x, sizes = pruning.compact(stage, keep, source, similarity)
  position = jnp.take_along_axis(position, jnp.minimum(source, n - 1), axis=1)
  places = pruning.moved(stage, keep, similarity, source)
  return PackedTokens(x, sizes, position, source < n, sources, places)


def _run_group(model, run_width, widths, packed_tokens, images):
  """Runs a group of images after a stage, at the smallest width that holds their kept tokens.

  Args:
    model: a `VisionTransformer`.
    run_width: `_run_to_next_stage` or `_run_to_heads`, without the arguments from `width` on.
    widths: the widths to choose from.
    packed_tokens: `PackedTokens` of all images, (b, n, …).
    images: (g,) indices of the images of the group.

  Returns:
    The result of `run_width`, (g, …).
  """
  keep = packed_tokens.keep[images]
  # If tokens are compact already, rows of images are copied whole.
  source = None
  if not Pruning.of(model.arch).compacts:
    source = jnp.minimum(kept_first(keep), keep.shape[1] - 1)
  count = keep.sum(axis=1)
  chosen = jnp.searchsorted(jnp.array(widths), count.max())
  branches = [functools.partial(run_width, width) for width in widths]
  return jax.lax.switch(chosen, branches, packed_tokens, images, source, count)


def _run_to_next_stage(model, index, width, packed_tokens, images, source, count):
  """Runs a group from stage `index` to the next one at a static width, and applies that one.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage.
    width: number of rows of each image.
    packed_tokens: as for `_run_group`.
    images: as for `_run_group`.
    source: as for `_gather`.
    count: (g,) number of kept tokens of each image.

  Returns:
    The group's `PackedTokens` at the next stage, (g, n, …).
  """
  n = packed_tokens.keep.shape[1]
  x, sizes, position, places = _gather(packed_tokens, images, source, width)
  attend, present = _attention_of_first(model, width, sizes, count, position, places)
  x, cache = run_to_stage(model, index + 1, x, attend)
  sources = packed_tokens.sources
  if sources is not None:
    sources = sources[images]
  stage = Stage(x, sizes, present, cache, places)
  following = apply_stage(model, index + 1, stage, position, sources)
  sizes = None
  if following.sizes is not None:
    # Reductions divide by sizes, and a row that is not finite would spoil the rest of its image.
    sizes = _pad_rows(following.sizes, n, 1)
  padded = jax.tree.map(lambda a: _pad_rows(a, n), following._replace(sizes=None, sources=None))
  return padded._replace(sizes=sizes, sources=following.sources)


def _run_to_heads(model, tokens, width, packed_tokens, images, source, count):
  """Runs a group from the last stage through the last block, at a static width.

  Args:
    model: a `VisionTransformer`.
    tokens: see `packed`.
    width: as for `_run_to_next_stage`, and so are the other arguments.
    packed_tokens: `PackedTokens` of all images.
    images: (g,) indices.
    source: (g, n) rows, or None.
    count: (g,) numbers of kept tokens.

  Returns:
    The group's `HeadInputs`, (g, …).
  """
  n = packed_tokens.keep.shape[1]
  x, sizes, position, places = _gather(packed_tokens, images, source, width)
  attend, present = _attention_of_first(model, width, sizes, count, position, places)
  x, _ = run_to_stage(model, model.arch.stages, x, attend)
  last, read_tokens = model.blocks[-1], model.arch.read_tokens
  head_inputs = read_last_block(
    model,
    lambda: last(x, attend)[0],
    lambda: last.rows(x, x[:, :read_tokens], attend),
    present,
    sizes,
    tokens,
  )
  if not tokens:
    return head_inputs
  positions = _pad_rows(jnp.where(present, position, -1), n, -1)
  sources = packed_tokens.sources
  return head_inputs._replace(
    tokens=_pad_rows(head_inputs.tokens, n),
    positions=positions,
    sources=None if sources is None else sources[images],
  )


def _gather(packed_tokens, images, source, width):
  """Copies `width` rows of the images of a group straight from all images, kept tokens first.

  Args:
    packed_tokens: `PackedTokens` of all images, (b, n, …).
    images: (g,) indices of the images of the group.
    source: (g, n) int, the row of the token in each of the group's rows; None to copy the first
      rows as they are.
    width: number of rows to copy.

  Returns:
    (g, width, d) tokens, (g, width) sizes, or None, (g, width) positions, and (g, width, 2) places,
    or None.
  """
  return jax.tree.map(
    lambda a: a[images, :width] if source is None else a[images[:, None], source[:, :width]],
    (packed_tokens.x, packed_tokens.sizes, packed_tokens.position, packed_tokens.places),
  )


def _attention_of_first(model, width, sizes, count, position, places):
  """The attention function of the first `count` (g,) rows, and the (g, width) mask of these."""
  pruning = Pruning.of(model.arch)
  rotation = pruning.rotation(position, places)
  attend = functools.partial(pruning.prefix, count=count, sizes=sizes, rotation=rotation)
  return attend, jnp.arange(width) < count[:, None]


def _pad_rows(a, n, value=0):
  """(g, width, …) -> (g, n, …), padded: the branches of a switch must agree in shape."""
  more = [(0, 0), (0, n - a.shape[1])] + [(0, 0)] * (a.ndim - 2)
  return jnp.pad(a, more, constant_values=value)


def read_last_block(model, run, run_read, present, sizes, tokens):
  """Runs the last block for the tokens that are read; returns `HeadInputs` without positions.

  Args:
    model: a `VisionTransformer`.
    run: function that runs the block for all tokens: () -> (b, n, d).
    run_read: function that runs it for the tokens that the prediction reads: () -> (b, read, d).
    present: (b, n) mask of the tokens that there are.
    sizes: (b, n) sizes of the tokens; None if nothing is merged.
    tokens: see `packed`.
  """
  arch, prefix = model.arch, model.arch.prefix_tokens
  after = run() if arch.reads_patches or tokens else None
  normed = model.normed(after) if tokens else None
  if arch.reads_patches and not arch.aux_head:
    return HeadInputs(model.pool(after, sizes, present), None, normed, None)
  if not arch.aux_head:
    return HeadInputs(run_read(), None, normed, None)
  of_patches = model.classify_patches(after[:, prefix:])
  of_patches = jnp.where(present[:, prefix:, None], of_patches, -jnp.inf)
  return HeadInputs(after[:, :1], of_patches.max(axis=1, initial=-jnp.inf), normed, None)


def kept_first(keep):
  """(b, n) bool -> (b, n) indices of the kept tokens, in order, padded with n."""
  n = keep.shape[1]

  def counted(keep):
    before = jnp.cumsum(keep, axis=1)[..., None] <= jnp.arange(n)  # (b, of, n)
    return _count(before)

  def ordered(keep):  # a CPU compiles this in a quarter of the time
    return jnp.sort(jnp.where(keep, jnp.arange(n), n), axis=1)

  return jax.lax.platform_dependent(keep, cpu=ordered, default=counted)


def kept_positions(position, keep):
  """(b, n) bool mask of the kept tokens, by their original index in the image."""
  at = position[..., None] == jnp.arange(position.shape[1])  # (b, of, n)
  return _count(at & keep[..., None]) > 0


def _count(of):
  """(b, of, n) bool -> (b, n) counts over `of`. Vectorised, unlike a scatter."""
  return of.astype(jnp.int32).sum(axis=1)
