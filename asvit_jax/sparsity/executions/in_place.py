"""Executions that keep tokens in place: dense, and masked, which defines pruning; and `Outputs`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.gates import best, keep_above, straight_through_gate
from asvit_jax.sparsity.pruning import Pruning, Stage, first_tokens
from asvit_jax.sparsity.sources import first_sources, follow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
  """The result of a forward pass; `jit` computes only the fields that are read.

  Attributes:
    logits: (b, classes) float32, the prediction; the features of the image if the network has no
      classifier, see `Architecture.head`.
    class_logits: (b, classes) float32 without the auxiliary head, from which `logits` differ if
      there is one; None for packed and fixed.
    aux_logits: (b, n, classes) float32 of the patch tokens; None without an auxiliary head, and for
      packed and fixed.
    tokens: (b, prefix + n, d) float32 tokens after the last block and the final norm (unless
      `Architecture.norm_after_pool`), the class token first; rows of pruned tokens are meaningless.
      Packed and fixed return them only on request, the kept ones first.
    positions: (b, prefix + n) int32, the token in each row of `tokens`: 0 the class token, from
      `Architecture.prefix_tokens` on the patches, row by row; -1 for a meaningless row. None if
      `tokens` is None.
    keep: (b, stages, n) float32, 1 for the patch tokens that each stage keeps.
    scores: (b, stages, n) float32 scores of the patch tokens; None for packed.
    kept: (b, stages) float32 number of kept patch tokens, differentiable like `keep`.
    sources: (b, n) int32, the token that each patch is part of after the last stage, by the numbers
      of `positions`; -1 for a dropped patch. See `sparsity.sources`. None if `tokens` is None, and
      if the reduction does not say where tokens go.
  """

  logits: jax.Array
  class_logits: jax.Array | None = None
  aux_logits: jax.Array | None = None
  tokens: jax.Array | None = None
  positions: jax.Array | None = None
  keep: jax.Array | None = None
  scores: jax.Array | None = None
  kept: jax.Array | None = None
  sources: jax.Array | None = None


@usual
def dense(model, images, remat=False):
  """The plain ViT: nothing is pruned.

  Args:
    model: a `VisionTransformer`, with or without thresholds.
    images: (b, height, width, 3) normalised images.
    remat: whether the backward pass recomputes the blocks instead of storing their results.

  Returns:
    `Outputs` without stages: keep and scores are (b, 0, n).
  """
  return finish_dense(model, 0, model.embed(images), remat)


@usual
def masked(model, images, gate=straight_through_gate, remat=False, follows=True):
  """Pruned tokens stay in place, but no token attends to them: fixed shapes, dynamic masks.

  A stage is before each block of `arch.prune_before`, or inside the block before it if
  `arch.prune_inside`. It keeps a patch token if the earlier stages kept it and if its score in the
  latest attention exceeds the stage's threshold; `arch.count_multiple` rounds an image's number of
  tokens up.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    gate: function of scores (b, n) and a threshold () that returns the keep mask (b, n).
    remat: as for `dense`.
    follows: whether to return `sources`. `jit` drops what is not read; some converters do not.

  Returns:
    `Outputs`; gradients reach the thresholds through `keep`. Its values for pruned tokens are
    meaningless.
  """
  pruning, prefix = Pruning.of(model.arch), model.arch.prefix_tokens
  stage = before_first_stage(model, images, remat)
  keep = jnp.ones((images.shape[0], model.arch.patches), jnp.float32)
  sources = first_sources(images.shape[0], prefix, model.arch.patches) if follows else None
  keeps, all_scores = [], []
  for i in range(model.arch.stages):
    similarity = pruning.similarity(stage)
    scores = pruning.scores(stage, similarity)
    gated = gate(scores[:, prefix:], model.thresholds[i])
    if model.arch.count_multiple > 1:  # rounding up needs all scores of an image
      wide = keep_above(
        scores,
        stage.present,
        model.thresholds[i],
        model.arch.count_multiple,
        model.arch.least_patches,
      )
      gated = wide[:, prefix:] + gated - jax.lax.stop_gradient(gated)
    if model.arch.least_patches:
      least = best(scores[:, prefix:], keep)
      gated += jax.lax.stop_gradient(jnp.maximum(least - gated, 0.0))
    # Each threshold answers for its own stage only, as in the authors' code: no gradient reaches
    # an earlier one through this product.
    keep = jax.lax.stop_gradient(keep) * gated
    keeps.append(keep)
    all_scores.append(scores[:, prefix:])
    sources = follow(sources, pruning, stage, pruning.with_prefix(keep), similarity)
    stage = after_stage(model, i, stage, keep, remat, similarity)
  attend = pruning.among(keep, stage.sizes, stage.places)
  return finish(model, stage.x, attend, keeps, all_scores, remat, stage.sizes, sources)


def before_first_stage(model, images, remat=False):
  """The first `Stage` of normalised images (b, height, width, 3); nothing is pruned yet."""
  x, pruning = model.embed(images), Pruning.of(model.arch)
  x, cache = run_to_stage(model, 0, x, pruning.dense, remat)
  return Stage(x, pruning.first_sizes(*x.shape[:2]), jnp.ones(x.shape[:2], jnp.float32), cache)


def tokens_above(model, index, stage):
  """The tokens of a `Stage` whose scores exceed the threshold of stage `index`.

  Returns:
    The keep mask (b, n), bool, and the similarity (b, n, n) that the scores used, or None.
  """
  pruning = Pruning.of(model.arch)
  similarity = pruning.similarity(stage)
  scores = pruning.scores(stage, similarity)
  threshold, arch = model.thresholds[index], model.arch
  keep = keep_above(scores, stage.present, threshold, arch.count_multiple, arch.least_patches)
  return keep, similarity


def after_stage(model, index, stage, keep, remat=False, similarity=None):
  """Runs the blocks after stage `index`, which keeps `keep`, up to the next stage or last block.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage.
    stage: the `Stage`.
    keep: (b, n) mask of patch tokens.
    remat: as for `dense`.
    similarity: see `Pruning.similarity`, if it was already computed.

  Returns:
    The `Stage` before the next stage, or before the last block.
  """
  pruning = Pruning.of(model.arch)
  mask = pruning.with_prefix(keep)
  x, sizes = pruning.reduce(stage, mask, similarity)
  places = pruning.moved(stage, mask, similarity)
  x, cache = run_to_stage(model, index + 1, x, pruning.among(keep, sizes, places), remat)
  return Stage(x, sizes, jax.lax.stop_gradient(mask), cache, places)


def run_to_stage(model, index, x, attend, remat=False, halves=None):
  """Runs the blocks from one stage to the next, or up to the last block.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage at which to stop, starting from the stage before it. 0 starts from the
      images; the number of stages stops before the last block.
    x: (..., n, d) tokens left after the previous stage.
    attend: attention function for `Block`.
    remat: as for `dense`.
    halves: two functions of (block, x) that run the halves of a block, in place of its own
      `attended`, with `attend`, and `fed_forward`.

  Returns:
    The (..., n, d) tokens, and the `AttentionCache` of the last attention; None if none ran.
  """
  arch, cache = model.arch, None
  attended, fed_forward = halves or (
    lambda block, x: block.attended(x, attend),
    lambda block, x: block.fed_forward(x),
  )

  def whole(block, x):
    x, cache = attended(block, x)
    return fed_forward(block, x), cache

  def run(function, block, x):
    return _checkpointed(functools.partial(function, block), remat)(x)

  bounds = (0, *arch.prune_before, arch.depth - 1)
  first, last = bounds[index], bounds[index + 1]
  if arch.prune_inside and index:
    x = run(fed_forward, model.blocks[first - 1], x)
  for i, block in enumerate(model.blocks[first:last], first):
    inside = arch.prune_inside and index < arch.stages and i == last - 1
    x, cache = run(attended if inside else whole, block, x)
  return x, cache


def _run_block(block, x, attend, remat):
  return _checkpointed(functools.partial(block, attend=attend), remat)(x)


def _checkpointed(function, remat):
  """A function of tokens; with `remat`, the backward pass computes its results again."""
  if not remat:
    return function

  def run(x):  # `checkpoint` takes no bound methods of modules
    return function(x)

  return jax.checkpoint(run)


def run_last_block(model, x, attend, remat=False):
  """The last block. The prediction reads the class token only, or `reads_patches`, too.

  Args:
    model: a `VisionTransformer`.
    x: (b, n, d) tokens before the block, the class token first.
    attend: attention function for `Block`, on (b, n, d) tokens.
    remat: as for `dense`.

  Returns:
    The tokens after the block: (b, read, d), those that `VisionTransformer.pool` takes, and
    (b, n, d), all of them. If the second array is not used, `jit` does not compute it.
  """
  block = model.blocks[-1]
  tokens, _ = _run_block(block, x, attend, remat)
  if model.arch.reads_patches:
    return tokens[:, :1] if model.arch.aux_head else tokens, tokens

  def read_rows(x):
    return block.rows(x, first_tokens(x, model.arch.read_tokens), attend)

  return (jax.checkpoint(read_rows) if remat else read_rows)(x), tokens


def finish_dense(model, first, x, remat=False):
  """Runs the blocks from `first` on without pruning, and predicts.

  Args:
    model: a `VisionTransformer`.
    first: index of the block before which the tokens are.
    x: (b, n, d) tokens.
    remat: as for `dense`.

  Returns:
    `Outputs` without stages.
  """
  attend = Pruning.of(model.arch).dense
  for block in model.blocks[first:-1]:
    x, _ = _run_block(block, x, attend, remat)
  sources = first_sources(x.shape[0], model.arch.prefix_tokens, model.arch.patches)
  return finish(model, x, attend, remat=remat, sources=sources)


def finish(model, x, attend, keeps=(), scores=(), remat=False, sizes=None, sources=None):
  """Runs the last block, and predicts: the end of every forward that keeps tokens in place.

  Args:
    model: a `VisionTransformer`.
    x: (b, n, d) tokens before the last block.
    attend: attention function for `Block`.
    keeps: the mask of each stage, (b, n) of the patches; only the last one matters to `logits`.
    scores: the scores of each stage, (b, n) of the patches.
    remat: as for `dense`.
    sizes: (b, n) number of patches that each token stands for; None if nothing is merged.
    sources: see `Outputs`.

  Returns:
    `Outputs`.
  """
  b, n, prefix = x.shape[0], model.arch.patches, model.arch.prefix_tokens
  keep = jnp.stack(keeps, axis=1) if keeps else jnp.zeros((b, 0, n), jnp.float32)
  scores = jnp.stack(scores, axis=1) if scores else jnp.zeros((b, 0, n), jnp.float32)
  read, x = run_last_block(model, x, attend, remat)
  present = Pruning.of(model.arch).with_prefix(keeps[-1]) if keeps else None
  class_logits = model.classify(model.pool(read, sizes, present))
  aux_logits = model.classify_patches(x[:, prefix:]) if model.arch.aux_head else None
  left = keeps[-1] > 0 if keeps else jnp.ones((b, n), bool)
  logits = model.predict(
    class_logits, lambda: jnp.where(left[..., None], aux_logits, -jnp.inf).max(axis=1)
  )
  present = Pruning.of(model.arch).with_prefix(left)
  positions = jnp.where(present, jnp.arange(prefix + n), -1)
  return Outputs(
    logits,
    class_logits,
    aux_logits,
    model.normed(x),
    positions,
    keep,
    scores,
    keep.sum(axis=-1),
    sources,
  )
