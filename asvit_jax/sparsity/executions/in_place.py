"""Executions that keep tokens in place: dense, and masked, which defines pruning."""

import functools

import jax
import jax.numpy as jnp

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity import keeping
from asvit_jax.sparsity.attending import Attending, Stage
from asvit_jax.sparsity.executions.outputs import Outputs
from asvit_jax.sparsity.gates import straight_through_gate


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
  return _dense_from(model, 0, model.embed(images), remat)


@usual
def masked(model, images, gate=straight_through_gate, remat=False):
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

  Returns:
    `Outputs`; gradients reach the thresholds through `keep`. Its values for pruned tokens are
    meaningless.
  """
  attending, prefix = Attending.of(model.arch), model.arch.prefix_tokens
  stage = before_first_stage(model, images, remat)
  keep = jnp.ones((images.shape[0], model.arch.patches), jnp.float32)
  keeps, all_scores = [], []
  for i in range(model.arch.stages):
    similarity = attending.similarity(stage)
    scores = attending.scores(stage, similarity)
    gated = gate(scores[:, prefix:], model.thresholds[i])
    if model.arch.count_multiple > 1:  # which tokens stay is decided by images, not one by one
      wide = keeping.over(scores, stage.present, model.thresholds[i], model.arch.count_multiple)
      gated = wide[:, prefix:] + gated - jax.lax.stop_gradient(gated)
    # Each threshold answers for its own stage only, as in the authors' code: no gradient reaches
    # an earlier one through this product.
    keep = jax.lax.stop_gradient(keep) * gated
    keeps.append(keep)
    all_scores.append(scores[:, prefix:])
    stage = after_stage(model, i, stage, keep, remat, similarity)
  attend = _among(model.arch, keep, stage.sizes)
  return _outputs(model, stage.x, attend, remat, keeps, all_scores)


def before_first_stage(model, images, remat=False):
  """The first `Stage` of normalised images (b, height, width, 3); nothing is pruned yet."""
  x, attending = model.embed(images), Attending.of(model.arch)
  x, evidence = run_up_to(model, 0, x, attending.dense, remat)
  return Stage(x, attending.first_sizes(*x.shape[:2]), jnp.ones(x.shape[:2], jnp.float32), evidence)


def after_stage(model, index, stage, keep, remat=False, similarity=None):
  """Runs the blocks after stage `index`, which keeps `keep`, up to the next stage or last block.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage.
    stage: the `Stage`.
    keep: (b, n) mask of patch tokens.
    remat: as for `dense`.
    similarity: see `Attending.similarity`, if it was already computed.

  Returns:
    The `Stage` before the next stage, or before the last block.
  """
  attending = Attending.of(model.arch)
  x, sizes = attending.reduce(stage, _with_prefix(model.arch, keep), similarity)
  x, evidence = run_up_to(model, index + 1, x, _among(model.arch, keep, sizes), remat)
  return Stage(x, sizes, jax.lax.stop_gradient(_with_prefix(model.arch, keep)), evidence)


def logits(model, stage):
  """(b, classes) logits of `masked`, from the `Stage` that the last `after_stage` returns."""
  keep = stage.present[:, model.arch.prefix_tokens :]
  attend = _among(model.arch, keep, stage.sizes)
  return _outputs(model, stage.x, attend, False, [keep], []).logits


def dense_logits(model, stage):
  """(b, classes) logits of the dense network from its `before_first_stage`."""
  first, x = model.arch.prune_before[0], stage.x
  if model.arch.prune_inside:
    x = model.blocks[first - 1].fed_forward(x)
  return _dense_from(model, first, x).logits


def _dense_from(model, first, x, remat=False):
  """`Outputs` of the blocks from `first` on, without pruning."""
  attend = Attending.of(model.arch).dense
  for block in model.blocks[first:-1]:
    x, _ = _run(block, x, attend, remat)
  return _outputs(model, x, attend, remat, [], [])


def _among(arch, keep, sizes):
  """The attention function that lets only kept tokens attend to each other."""
  return functools.partial(Attending.of(arch).masked, keep=_with_prefix(arch, keep), sizes=sizes)


def _with_prefix(arch, keep):
  """The mask of all tokens, from the (b, n) mask of the patches; tokens before them are kept."""
  return jnp.concatenate([jnp.ones((keep.shape[0], arch.prefix_tokens), keep.dtype), keep], axis=1)


def run_up_to(model, index, x, attend, remat=False):
  """Runs the blocks from one stage to the next, or up to the last block.

  Args:
    model: a `VisionTransformer`.
    index: index of the stage at which to stop, starting from the stage before it. 0 starts from the
      images; the number of stages stops before the last block.
    x: (..., n, d) tokens left after the previous stage.
    attend: attention function for `Block`.
    remat: as for `dense`.

  Returns:
    The (..., n, d) tokens, and the evidence of the last attention; None if no attention ran.
  """
  arch, evidence = model.arch, None
  bounds = (0, *arch.prune_before, arch.depth - 1)
  first, last = bounds[index], bounds[index + 1]
  if arch.prune_inside and index:
    x = _checkpointed(model.blocks[first - 1].fed_forward, remat)(x)
  for i, block in enumerate(model.blocks[first:last], first):
    if arch.prune_inside and index < arch.stages and i == last - 1:
      x, evidence = _checkpointed(functools.partial(block.attended, attend=attend), remat)(x)
    else:
      x, evidence = _run(block, x, attend, remat)
  return x, evidence


def _run(block, x, attend, remat):
  return _checkpointed(functools.partial(block, attend=attend), remat)(x)


def _checkpointed(function, remat):
  """A function of tokens; where `remat` says so, the backward pass computes it again."""
  if not remat:
    return function

  def run(x):  # `checkpoint` takes no bound methods of modules
    return function(x)

  return jax.checkpoint(run)


def last_block(model, x, attend, remat=False):
  """The last block. The prediction reads only the class token, or all tokens with an aux head.

  Args:
    model: a `VisionTransformer`.
    x: (b, n, d) tokens before the block, the class token first.
    attend: attention function for `Block`, on (b, n, d) tokens.
    remat: as for `dense`.

  Returns:
    The tokens after the block: (b, read, d), those that the prediction reads, and (b, n, d), all of
    them. If the second array is not used, `jit` does not compute it.
  """
  block = model.blocks[-1]
  tokens, _ = _run(block, x, attend, remat)
  if model.arch.aux_head:
    return tokens[:, :1], tokens

  def read_rows(x):
    return block.rows(x, x[:, : model.arch.read_tokens], attend)

  return (jax.checkpoint(read_rows) if remat else read_rows)(x), tokens


def _outputs(model, x, attend, remat, keeps, scores):
  """`Outputs` from the tokens before the last block."""
  b, n, prefix = x.shape[0], model.arch.patches, model.arch.prefix_tokens
  keep = jnp.stack(keeps, axis=1) if keeps else jnp.zeros((b, 0, n), jnp.float32)
  scores = jnp.stack(scores, axis=1) if scores else jnp.zeros((b, 0, n), jnp.float32)
  read, x = last_block(model, x, attend, remat)
  class_logits = model.classify(read)
  aux_logits = model.classify_patches(x[:, prefix:]) if model.arch.aux_head else None
  left = keeps[-1] > 0 if keeps else jnp.ones((b, n), bool)
  logits = model.predict(
    class_logits, lambda: jnp.where(left[..., None], aux_logits, -jnp.inf).max(axis=1)
  )
  positions = jnp.where(_with_prefix(model.arch, left), jnp.arange(prefix + n), -1)
  return Outputs(
    logits, class_logits, aux_logits, model.norm(x), positions, keep, scores, keep.sum(axis=-1)
  )
