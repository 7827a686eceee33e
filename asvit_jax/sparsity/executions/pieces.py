"""Packed execution of one image, cut at its stages, for formats whose shapes depend on values.

A piece is a function whose shapes follow from those of its arguments, which a converter can trace
with symbolic sizes. Between two pieces the runtime finds the rows of the tokens that the stage
keeps; the next piece gathers these rows, and computes nothing for the others:

    start -> rows -> go_on -> rows -> … -> finish
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions.in_place import (
  Outputs,
  before_first_stage,
  run_last_block,
  run_to_stage,
  tokens_above,
)
from asvit_jax.sparsity.pruning import Pruning, Stage
from asvit_jax.sparsity.sources import first_sources, follow


class Scored(NamedTuple):
  """The tokens of one image at a stage that has chosen which to keep; none is removed yet.

  Attributes:
    keep: (1, n) bool, the tokens that the stage keeps.
    stage: the `Stage`, (1, n, …).
    similarity: (1, n, n), see `Pruning.similarity`; None if not used.
    position: (1, n) int32, the original index of each token in its image.
    kept: (1, stages) float32, the number of patch tokens that each earlier stage kept, then 0.
    sources: (1, patches), see `Outputs`, before the stage; None unless requested.
  """

  keep: jax.Array
  stage: Stage
  similarity: jax.Array | None
  position: jax.Array
  kept: jax.Array
  sources: jax.Array | None = None


@usual
def start(model, images, tokens=False):
  """Runs the network up to its first stage.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (1, height, width, 3) normalised image.
    tokens: as for `finish`.

  Returns:
    `Scored`.
  """
  stage = before_first_stage(model, images)
  position = jnp.arange(stage.x.shape[1], dtype=jnp.int32)[None]
  kept = jnp.zeros((1, model.arch.stages), jnp.float32)
  sources = first_sources(1, model.arch.prefix_tokens, model.arch.patches) if tokens else None
  return _scored(model, 0, stage, position, kept, sources)


@usual
def go_on(model, index, scored, rows):
  """Runs the network from a stage to the next.

  Args:
    model: as for `start`.
    index: index of the stage at which `scored` is.
    scored: `Scored`.
    rows: (m,) int, the indices of the true values of `scored.keep`, ascending.

  Returns:
    `Scored` at stage `index + 1`, with m tokens.
  """
  x, sizes, position, places, sources = _compact(model, scored, rows)
  attend = _attention(model, sizes, position, places)
  x, cache = run_to_stage(model, index + 1, x, attend)
  stage = Stage(x, sizes, jnp.ones(x.shape[:2], jnp.float32), cache, places)
  return _scored(model, index + 1, stage, position, _counted(model, index, scored), sources)


@usual
def finish(model, scored, rows, tokens=False):
  """Runs the network from its last stage to its end.

  Args:
    model: as for `start`.
    scored: `Scored` at the last stage.
    rows: as for `go_on`.
    tokens: whether to return the kept tokens; the last block then runs for all of them. If so,
      `start` was called with it, too.

  Returns:
    `Outputs` with logits and kept, and with `tokens` and `positions`, in their original places and
    0 and -1 elsewhere, and `sources`, if `tokens`.
  """
  x, sizes, position, places, sources = _compact(model, scored, rows)
  prefix = model.arch.prefix_tokens
  attend = _attention(model, sizes, position, places)
  x, _ = run_to_stage(model, model.arch.stages, x, attend)
  read, x = run_last_block(model, x, attend)

  def best():
    # Over all rows, as there may be no patches, and not every runtime has a maximum of nothing.
    patches = (jnp.arange(x.shape[1]) >= prefix)[None, :, None]
    return jnp.where(patches, model.classify_patches(x), -jnp.inf).max(axis=1)

  logits, more = model.predict(model.classify(model.pool(read, sizes)), best), {}
  if tokens:
    n = prefix + model.arch.patches
    at = position[0][None, :] == jnp.arange(n)[:, None]  # (n, m)
    more["tokens"] = jnp.matmul(at.astype(jnp.float32), model.normed(x), precision="highest")
    there = at.astype(jnp.int32).sum(axis=1) > 0
    more["positions"] = jnp.where(there, jnp.arange(n, dtype=jnp.int32), -1)[None]
    more["sources"] = sources
  return Outputs(logits, kept=_counted(model, model.arch.stages - 1, scored), **more)


def _scored(model, index, stage, position, kept, sources):
  keep, similarity = tokens_above(model, index, stage)
  return Scored(keep, stage, similarity, position, kept, sources)


def _counted(model, index, scored):
  """`Scored.kept` with the number of patches that stage `index`, at which `scored` is, keeps."""
  count = scored.keep.astype(jnp.float32).sum(axis=1, keepdims=True) - model.arch.prefix_tokens
  return jnp.where(jnp.arange(model.arch.stages) == index, count, scored.kept)


def _attention(model, sizes, position, places):
  pruning = Pruning.of(model.arch)
  rotation = pruning.rotation(position, places)
  return functools.partial(pruning.dense, sizes=sizes, rotation=rotation)


def _compact(model, scored, rows):
  """The tokens, sizes (None if nothing is merged), positions, places and sources of a stage."""
  rows = rows[None]
  pruning, keep = Pruning.of(model.arch), scored.keep.astype(jnp.float32)
  sources = follow(scored.sources, pruning, scored.stage, keep, scored.similarity, scored.position)
  x, sizes = pruning.compact(scored.stage, keep, rows, scored.similarity)
  places = pruning.moved(scored.stage, keep, scored.similarity, rows)
  position = jnp.take_along_axis(scored.position, rows, axis=1, mode="clip")
  return x, sizes, position, places, sources
