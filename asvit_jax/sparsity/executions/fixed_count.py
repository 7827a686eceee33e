"""Fixed execution: every image keeps the same, static number of tokens, those of highest score.

Shapes are static, so a single program serves all images and computes nothing for pruned tokens. It
uses comparisons in place of sorts and scatters, which all converters of artifacts support; they
cost no more than a product of the attention.
"""

import functools

import jax.numpy as jnp

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.executions.in_place import Outputs, run_last_block, run_to_stage
from asvit_jax.sparsity.gates import keep_best
from asvit_jax.sparsity.pruning import Pruning, Stage
from asvit_jax.sparsity.sources import first_sources, follow


def fixed(model, images, tokens=False):
  """`fixed_count` with the counts of the model.

  Args:
    model: a `VisionTransformer` with `counts`.
    images: (b, height, width, 3) normalised images.
    tokens: whether to return the kept tokens.

  Returns:
    `Outputs`, see `fixed_count`.
  """
  return fixed_count(model, images, model.counts, tokens=tokens)


@usual
def fixed_count(model, images, counts, pruning=None, tokens=False):
  """Keeps a static number of tokens at each stage; the others are dropped, or merged.

  Args:
    model: a `VisionTransformer` that prunes; its thresholds are not read.
    images: (b, height, width, 3) normalised images.
    counts: number of patch tokens that each stage keeps, static, none above the one before.
    pruning: a `Pruning` to score and reduce with; by default that of the architecture.
    tokens: whether to return the kept tokens; the last block then runs for all of them.

  Returns:
    `Outputs` without class_logits and aux_logits, and with `tokens` and `positions`, the kept ones
    first, and `sources`, if `tokens`. Scores of tokens removed by an earlier stage are 0.

  Raises:
    ValueError: another number of counts than of stages.
  """
  x, prefix = model.embed(images), model.arch.prefix_tokens
  n = prefix + model.arch.patches
  pruning = pruning or Pruning.of(model.arch)
  sizes = pruning.first_sizes(*x.shape[:2])
  position = jnp.broadcast_to(jnp.arange(n), x.shape[:2])
  sources = first_sources(x.shape[0], prefix, model.arch.patches) if tokens else None
  attend, keeps, all_scores, places = pruning.dense, [], [], None
  x, cache = run_to_stage(model, 0, x, attend)
  for index, count in zip(range(model.arch.stages), counts, strict=True):
    stage = Stage(x, sizes, jnp.ones(x.shape[:2], jnp.float32), cache, places)
    similarity = pruning.similarity(stage)
    scores = pruning.scores(stage, similarity)
    # The scores of the tokens before the patches are infinite.
    keep = keep_best(scores, stage.present, prefix + count)
    all_scores.append(_scatter(position, scores, n)[:, prefix:])
    rows = rows_of_mask(keep, prefix + count)
    gone = rows_of_mask(~keep, x.shape[1] - prefix - count)
    keep = keep.astype(jnp.float32)
    sources = follow(sources, pruning, stage, keep, similarity, position)
    x, sizes = pruning.compact(stage, keep, rows, similarity, gone)
    places = pruning.moved(stage, keep, similarity, rows, gone)
    position = jnp.take_along_axis(position, rows, axis=1, mode="clip")
    keeps.append(_scatter(position, jnp.ones(position.shape, jnp.float32), n)[:, prefix:])
    rotation = pruning.rotation(position, places)
    attend = functools.partial(pruning.dense, sizes=sizes, rotation=rotation)
    x, cache = run_to_stage(model, index + 1, x, attend)
  logits, after = _predict_unpadded(model, x, attend, sizes)
  more = {}
  if tokens:
    missing = n - x.shape[1]
    more["tokens"] = jnp.pad(model.normed(after), ((0, 0), (0, missing), (0, 0)))
    more["positions"] = jnp.pad(position, ((0, 0), (0, missing)), constant_values=-1)
    more["sources"] = sources
  # A network without stages has no masks and no scores.
  nothing = jnp.zeros((x.shape[0], 0, model.arch.patches), jnp.float32)
  keep = jnp.stack(keeps, axis=1) if keeps else nothing
  all_scores = jnp.stack(all_scores, axis=1) if all_scores else nothing
  return Outputs(logits, keep=keep, scores=all_scores, kept=keep.sum(axis=-1), **more)


@usual
def predict_from_tokens(model, x, attend, sizes=None):
  """The prediction from the tokens before the last block, none of which is padding.

  Args:
    model: a `VisionTransformer`.
    x: (b, n, d), the class token first.
    attend: attention function for `Block`.
    sizes: (b, n) number of patches that each token stands for; None if nothing is merged.

  Returns:
    `Outputs` with logits only.
  """
  return Outputs(_predict_unpadded(model, x, attend, sizes)[0])


def _predict_unpadded(model, x, attend, sizes):
  """The logits, and all (b, n, d) tokens after the last block."""
  read, x = run_last_block(model, x, attend)
  patches = x[:, model.arch.prefix_tokens :]

  def best():
    return model.classify_patches(patches).max(axis=1, initial=-jnp.inf)

  return model.predict(model.classify(model.pool(read, sizes)), best), x


def rows_of_mask(keep, count):
  """(b, n) bool, `count` of each row true -> (b, count) int32, their indices in order."""
  index = jnp.arange(keep.shape[1])
  earlier = keep[:, None, :] & (index < index[:, None])
  place = earlier.astype(jnp.int32).sum(axis=-1)
  at = (place[..., None] == jnp.arange(count)) & keep[..., None]  # (b, n, count)
  return jnp.where(at, index[:, None], 0).sum(axis=1)


def _scatter(position, values, n):
  """Scatters (b, m) values to (b, m) different positions of a (b, n) array, 0 elsewhere."""
  at = position[..., None] == jnp.arange(n)  # (b, m, n)
  return jnp.where(at, values[..., None], 0.0).sum(axis=1)
