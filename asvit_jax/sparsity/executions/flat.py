"""Flat execution: the kept tokens of all images lie one after another, (T, d), as rows.

Packed execution pads the images of a group to a common width; flat rounds only each image's number
of tokens up, to a multiple of `ALIGN` rows:

    image 0   c a b        rows    c a b . c d . . c e f g h . . .      c a class token
    image 1   c d          start   0       4       8                    . padding
    image 2   c e f g h    count   3       2       5

Norms, projections and MLPs act on rows, whatever image they belong to. Attention, scores and
reductions act on windows: (b, n, …), the rows of each image from its start on. A backend says how
rows become windows and back, and how a block runs on rows; `Reference`, in plain XLA, defines it.
The executions for devices are those of `flat_backends`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions.in_place import run_to_stage, tokens_above
from asvit_jax.sparsity.executions.packed import (
  PackedTokens,
  apply_stage,
  kept_first,
  kept_positions,
  predict_from,
  read_last_block,
  start_packed,
)
from asvit_jax.sparsity.pruning import Pruning, Stage
from asvit_jax.sparsity.sources import first_sources, follow_to

# Rows between two starts: the tile of bfloat16 on a TPU, and two of float32.
ALIGN = 16


class Layout(NamedTuple):
  """Which rows belong to which image, and what is known of their tokens.

  Attributes:
    start: (b,) int32, the first row of each image, a multiple of `ALIGN`, ascending.
    count: (b,) int32, the number of its tokens.
    sizes: (b, n) float32, see `Stage`, of the first `count` tokens; None if nothing is merged.
    position: (b, n) int32, the original index of each token in its image.
    places: (b, n, 2), see `Stage`.
  """

  start: jax.Array
  count: jax.Array
  sizes: jax.Array | None
  position: jax.Array
  places: jax.Array | None

  @property
  def width(self):
    """n, the rows of a window."""
    return self.position.shape[1]

  @property
  def present(self):
    """(b, n) bool, the tokens that there are."""
    return jnp.arange(self.width) < self.count[:, None]

  @property
  def total(self):
    """() int32, the number of rows up to the end of the last image."""
    return self.start[-1] + aligned(self.count[-1])


class Moving(NamedTuple):
  """Rows before a stage, and where they go; in place of the tokens, if a backend `compacts`.

  Attributes:
    x: (length, d) rows.
    layout: their `Layout`.
    place: (b, n) int32, the place of each token in its image after the stage; -1 if it is removed.
    destination: (b, n) int, see `Pruning.destinations`; None if nothing is merged.
  """

  x: jax.Array
  layout: Layout
  place: jax.Array
  destination: jax.Array | None


class Merges(NamedTuple):
  """What a stage decides about the tokens before it, in windows; of backends that `merges`.

  Attributes:
    place: (b, n) int32, see `Moving`.
    destination: (b, n) int32, see `Moving`.
    sizes: (b, n) float32, the sizes of the tokens after the stage, in their new places.
    position: (b, n) int32, their original indices.
  """

  place: jax.Array
  destination: jax.Array
  sizes: jax.Array
  position: jax.Array


class Reference:
  """The backend in plain XLA, for every network, platform and compute type.

  A backend is an object with these methods. Rows that belong to no token may have any value, even
  one that is not finite, wherever a backend takes or returns rows.

  Attributes:
    starts: whether the blocks before the first stage run on rows, too, which have all tokens.
    compacts: whether it has `compacted`, for reductions that say where tokens go.
  """

  starts = False
  compacts = False

  def rows(self, windows, layout, length):
    """(b, n, d) windows -> (length, d) rows; `length` is static, at least `layout.total`."""
    row = jnp.arange(length)
    image = (row[:, None] >= layout.start[1:]).sum(axis=1)
    offset = jnp.minimum(row - layout.start[image], windows.shape[1] - 1)
    return windows[image, offset]

  def all_rows(self, windows):
    """(b, n, d) windows of which all rows are tokens -> (`most_rows`, d) rows."""
    b, n, d = windows.shape
    more = int(aligned(n)) - n
    return jnp.pad(windows, ((0, 0), (0, more), (0, 0))).reshape(most_rows(b, n), d)

  def windows(self, rows, layout):
    """(length, …) rows -> (b, n, …) windows, 0 beyond the tokens that there are."""
    row = jnp.minimum(layout.start[:, None] + jnp.arange(layout.width), len(rows) - 1)
    there = layout.present.reshape(*row.shape, *[1] * (rows.ndim - 1))
    return jnp.where(there, rows[row], 0)

  def attended(self, block, x, layout, pruning):
    """Attention with its residual, as `Block.attended`, on rows.

    Args:
      block: a `Block`.
      x: (length, d) rows.
      layout: the `Layout`.
      pruning: the `Pruning`.

    Returns:
      (length, d) rows, and the `AttentionCache` in windows, (b, n, …).
    """

    def attend(q, k, v):
      context, cache = attention(layout, pruning)(*(self.windows(a, layout) for a in (q, k, v)))
      return self.rows(context, layout, len(x)), cache

    return block.attended(x, attend)

  def fed_forward(self, block, x, layout):
    """The MLP with its residual, as `Block.fed_forward`: (length, d) -> (length, d)."""
    del layout
    return block.fed_forward(x)

  def read(self, block, x, layout, pruning, count):
    """The whole block for the first `count` tokens of every image: (length, d) -> (b, count, d)."""
    read = x[layout.start[:, None] + jnp.arange(count)]

    def attend(q, k, v):
      return attention(layout, pruning)(q, self.windows(k, layout), self.windows(v, layout))

    return block.rows(x, read, attend)

  def merges(self, model, index, x, layout, cache):
    """What stage `index` decides about rows, if a backend `compacts` and has a kernel for that.

    Args:
      model: a `VisionTransformer`.
      index: index of the stage.
      x: (length, d) rows.
      layout: their `Layout`.
      cache: the `AttentionCache` of the block before, in windows.

    Returns:
      `Merges`; None to decide by `in_place.tokens_above` and `Pruning.destinations`.
    """
    del model, index, x, layout, cache


reference = Reference()


@usual
def flat(model, images, backend=reference, rungs=None, tokens=False):
  """Runs the kept tokens only; equals `in_place.masked` image by image, whatever the batch.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    backend: a backend, see `Reference`.
    rungs: see `finish_flat`.
    tokens: whether to return the kept tokens; the last block then runs for all of them.

  Returns:
    `Outputs` as for `packed.packed`.
  """
  return finish_flat(model, start_flat(model, images, backend, tokens), backend, rungs, tokens)


def start_flat(model, images, backend, tokens=False):
  """As `start_packed`, by a backend that runs the blocks before the first stage if it `starts`."""
  if not backend.starts:
    return start_packed(model, images, tokens)
  x, cache, layout = _run_to_first_stage(model, images, backend)
  prefix, patches = model.arch.prefix_tokens, model.arch.patches
  sources = first_sources(len(images), prefix, patches) if tokens else None
  return _apply_stage(model, 0, backend, x, cache, layout, sources)


@usual
def dense(model, images, backend=reference):
  """The plain ViT on rows; as `in_place.dense`, but for the logits alone.

  Args:
    model: a `VisionTransformer` without thresholds.
    images: (b, height, width, 3) normalised images.
    backend: a backend, see `Reference`.

  Returns:
    (b, classes) logits.
  """
  x, _, layout = _run_to_first_stage(model, images, backend)
  heads = _run_heads(model, backend, x, layout, False)
  return model.predict(model.classify(heads.read), lambda: heads.best)


@usual
def finish_flat(model, packed_tokens, backend=reference, rungs=None, tokens=False):
  """Runs `flat` from the first stage on.

  Args:
    model: a `VisionTransformer` with thresholds.
    packed_tokens: the `PackedTokens` of `start_packed`, (b, n, …), for the same `tokens`.
    backend: a backend, see `Reference`.
    rungs: for each stage, the numbers of rows to compile for, ascending, the last of which is
      `most_rows`. The device chooses the smallest that holds all tokens. By default `most_rows`
      alone, for backends to which rows without a token cost nothing.
    tokens: see `flat`.

  Returns:
    `Outputs` as for `flat`.
  """
  arch, at_stage, keeps = model.arch, packed_tokens, []
  b, n = at_stage.keep.shape
  for index in range(arch.stages):
    kept = kept_positions(at_stage.position, at_stage.keep)
    keeps.append(kept[:, arch.prefix_tokens :])
    windows, layout = _laid_out(at_stage, Pruning.of(arch).compacts)
    run = functools.partial(
      _run_to_next_stage if index < arch.stages - 1 else _run_to_heads,
      *(model, index, backend, windows, layout, at_stage.sources, tokens),
    )
    lengths = rungs[index] if rungs else (most_rows(b, n),)
    if len(lengths) == 1:
      at_stage = run(lengths[0])
      continue
    branches = [functools.partial(run, length) for length in lengths]
    at_stage = jax.lax.switch((layout.total > jnp.array(lengths)).sum(), branches)
  return predict_from(model, at_stage, keeps)


def most_rows(b, n):
  """The number of rows of b images that keep all of their n tokens."""
  return b * int(aligned(n))


def aligned(count):
  """A number of tokens, rounded up to a multiple of `ALIGN`."""
  return -(-count // ALIGN) * ALIGN


def attention(layout, pruning):
  """The attention function of windows, (b, n, h, c), of which the first `count` tokens count."""
  rotation = pruning.rotation(layout.position, layout.places)
  return functools.partial(
    pruning.prefix, count=layout.count, sizes=layout.sizes, rotation=rotation
  )


def _laid_out(packed_tokens, compact):
  """The (b, n, d) tokens after a stage, the kept ones first, or a `Moving`; and their `Layout`."""
  keep, x = packed_tokens.keep, packed_tokens.x
  tokens = (x, packed_tokens.sizes, packed_tokens.position, packed_tokens.places)
  if isinstance(x, Moving):  # it moves by itself
    tokens = (None, *tokens[1:])
  if not compact:
    source = jnp.minimum(kept_first(keep), keep.shape[1] - 1)
    tokens = jax.tree.map(lambda a: a[jnp.arange(len(a))[:, None], source], tokens)
  count = keep.sum(axis=1).astype(jnp.int32)
  ends = jnp.cumsum(aligned(count)).astype(jnp.int32)
  start = jnp.concatenate([jnp.zeros(1, jnp.int32), ends[:-1]])
  windows, *rest = tokens
  return x if windows is None else windows, Layout(start, count, *rest)


def _run_to_first_stage(model, images, backend):
  """Runs the blocks before the first stage, or all but the last one; (rows, cache, `Layout`)."""
  pruning, windows = Pruning.of(model.arch), model.embed(images)
  b, n, _ = windows.shape
  start = int(aligned(n)) * jnp.arange(b, dtype=jnp.int32)
  position = jnp.broadcast_to(jnp.arange(n), (b, n))
  sizes = pruning.first_sizes(b, n) if model.arch.stages else None
  layout = Layout(start, jnp.full(b, n, jnp.int32), sizes, position, None)
  x = backend.all_rows(windows)
  x, cache = run_to_stage(model, 0, x, None, halves=_halves(backend, layout, pruning))
  return x, cache, layout


def _run_blocks(model, index, backend, windows, layout, length):
  """Runs the blocks from stage `index` to the next one; returns rows and their cache in windows."""
  pruning = Pruning.of(model.arch)
  if isinstance(windows, Moving):
    x = backend.compacted(windows, layout)
  else:
    x = backend.rows(windows, layout, length)
  return run_to_stage(model, index + 1, x, None, halves=_halves(backend, layout, pruning))


def _halves(backend, layout, pruning):
  """The halves of a block for `run_to_stage`."""
  return (
    lambda block, x: backend.attended(block, x, layout, pruning),
    lambda block, x: backend.fed_forward(block, x, layout),
  )


def _run_to_next_stage(model, index, backend, windows, layout, sources, tokens, length):
  """Runs the blocks from stage `index` to the next one, and applies that one.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage.
    backend: see `Reference`.
    windows: (b, n, d) tokens after the stage, the kept ones first; or a `Moving`.
    layout: their `Layout`.
    sources: (b, patches) sources after the stage; None unless requested.
    tokens: not used; see `_run_to_heads`.
    length: number of rows, static.

  Returns:
    The `PackedTokens` at the next stage.
  """
  del tokens
  x, cache = _run_blocks(model, index, backend, windows, layout, length)
  return _apply_stage(model, index + 1, backend, x, cache, layout, sources)


def _apply_stage(model, index, backend, x, cache, layout, sources):
  """Applies stage `index` to rows: as `apply_stage`, or with a `Moving` for the tokens."""
  pruning = Pruning.of(model.arch)
  present = layout.present.astype(jnp.float32)
  merges = backend.merges(model, index, x, layout, cache)
  if merges is not None:
    return _apply_merges(merges, x, layout, sources)
  stage = Stage(backend.windows(x, layout), layout.sizes, present, cache, layout.places)
  decided = keep, similarity = tokens_above(model, index, stage)
  after = apply_stage(model, index, stage, layout.position, sources, decided)
  if not (backend.compacts and pruning.traces):
    return after
  place = jnp.where(keep, jnp.cumsum(keep, axis=1) - 1, -1).astype(jnp.int32)
  destination = pruning.destinations(stage, keep, similarity) if pruning.merges else None
  return after._replace(x=Moving(x, layout, place, destination))


def _apply_merges(merges, x, layout, sources):
  """As `_apply_stage`, for `Merges` of rows."""
  count = (merges.place >= 0).sum(axis=1, keepdims=True)
  there = jnp.arange(layout.width) < count
  sources = follow_to(merges.destination, sources, layout.present, layout.position)
  moving = Moving(x, layout, merges.place, merges.destination)
  return PackedTokens(moving, jnp.where(there, merges.sizes, 1.0), merges.position, there, sources)


def _run_to_heads(model, index, backend, windows, layout, sources, tokens, length):
  """Runs the blocks from the last stage to the end; arguments as for `_run_to_next_stage`.

  Returns:
    `packed.HeadInputs`.
  """
  x, _ = _run_blocks(model, index, backend, windows, layout, length)
  head_inputs = _run_heads(model, backend, x, layout, tokens)
  if not tokens:
    return head_inputs
  positions = jnp.where(layout.present, layout.position, -1)
  return head_inputs._replace(positions=positions, sources=sources)


def _run_heads(model, backend, x, layout, tokens):
  """Runs the last block on rows; returns `packed.HeadInputs` without positions."""
  pruning, last = Pruning.of(model.arch), model.blocks[-1]

  def run():
    attended, _ = backend.attended(last, x, layout, pruning)
    return backend.windows(backend.fed_forward(last, attended, layout), layout)

  def run_read():
    return backend.read(last, x, layout, pruning, model.arch.read_tokens)

  return read_last_block(model, run, run_read, layout.present, layout.sizes, tokens)
