"""Flat execution: the kept tokens of all images lie one after another, (T, d), as rows.

Packed execution pads the images of a group to a common width; flat rounds only each image's own
number of tokens up, see `flat_rows`. The executions for devices are those of `flat_backends`.
"""

import functools

import jax
import jax.numpy as jnp

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions.flat_rows import Layout, Moving, aligned, most_rows, reference
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


@usual
def flat(model, images, backend=reference, rungs=None, tokens=False):
  """Runs the kept tokens only; equals `in_place.masked` image by image, whatever the batch.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    backend: a backend, see `flat_rows.Reference`.
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
    backend: a backend, see `flat_rows.Reference`.

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
    backend: a backend, see `flat_rows.Reference`.
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
  image = jnp.arange(len(count))
  # Not `cumsum`, which is three operations of a TPU.
  start = jnp.where(image < image[:, None], aligned(count), 0).sum(axis=1).astype(jnp.int32)
  windows, *rest = tokens
  return x if windows is None else windows, Layout(start, count, *rest)


def _run_to_first_stage(model, images, backend):
  """Runs the blocks before the first stage, or all but the last one; (rows, cache, `Layout`)."""
  pruning, arch = Pruning.of(model.arch), model.arch
  b, n = len(images), arch.prefix_tokens + arch.patches
  start = int(aligned(n)) * jnp.arange(b, dtype=jnp.int32)
  position = jnp.broadcast_to(jnp.arange(n), (b, n))
  sizes = pruning.first_sizes(b, n) if arch.stages else None
  layout = Layout(start, jnp.full(b, n, jnp.int32), sizes, position, None)
  x = backend.embedded(model, images)
  x, cache = run_to_stage(model, 0, x, None, halves=_halves(model, 0, backend, layout, pruning))
  return x, cache, layout


def _run_blocks(model, index, backend, windows, layout, length):
  """Runs the blocks from stage `index` to the next one; returns rows and their cache in windows."""
  pruning = Pruning.of(model.arch)
  if isinstance(windows, Moving):
    x = backend.compacted(windows, layout)
  else:
    x = backend.rows(windows, layout, length)
  halves = _halves(model, index + 1, backend, layout, pruning)
  return run_to_stage(model, index + 1, x, None, halves=halves)


def _halves(model, index, backend, layout, pruning):
  """The halves of a block for `run_to_stage` with that `index`."""
  arch = model.arch
  last = model.blocks[arch.prune_before[index] - 1] if index < arch.stages else None
  return (
    lambda block, x: backend.attended(block, x, layout, pruning, block is last),
    lambda block, x: backend.fed_forward(block, x, layout),
  )


def _run_to_next_stage(model, index, backend, windows, layout, sources, tokens, length):
  """Runs the blocks from stage `index` to the next one, and applies that one.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage.
    backend: see `flat_rows.Reference`.
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
  merges = backend.merges(model, index, x, layout, cache) if backend.compacts else None
  if merges is not None:
    return _apply_merges(merges, x, layout, sources)
  stage = Stage(backend.windows(x, layout), layout.sizes, present, cache, layout.places)
  decided = keep, similarity = tokens_above(model, index, stage)
  after = apply_stage(model, index, stage, layout.position, sources, decided)
  if not (backend.compacts and pruning.traces):
    return after
  into = _places(keep)
  if pruning.merges:
    n, destination = keep.shape[1], pruning.destinations(stage, keep, similarity)
    into = jnp.take_along_axis(into, jnp.minimum(destination, n - 1), axis=1)
    into = jnp.where(destination < n, into, -1)
  return after._replace(x=Moving(x, layout, into))


def _places(keep):
  """(b, n) bool -> (b, n) int32, the number of kept tokens before each kept one; -1 for others."""
  before = jnp.tri(keep.shape[1], k=-1, dtype=jnp.bfloat16).T
  # Sums of zeros and ones, in float32: exact, and one operation of a TPU where `cumsum` is five.
  place = jnp.matmul(keep.astype(jnp.bfloat16), before, preferred_element_type=jnp.float32)
  return jnp.where(keep, place, -1).astype(jnp.int32)


def _apply_merges(merges, x, layout, sources):
  """As `_apply_stage`, for `Merges` of rows."""
  there = merges.sizes > 0
  sources = follow_to(merges.destination, sources, layout.present, layout.position)
  moving = Moving(x, layout, merges.into)
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
    attended, _ = backend.attended(last, x, layout, pruning, False)
    return backend.windows(backend.fed_forward(last, attended, layout), layout)

  def run_read():
    return backend.read(last, x, layout, pruning, model.arch.read_tokens)

  return read_last_block(model, run, run_read, layout.present, layout.sizes, tokens)
