"""Executions that leave tokens where they are: dense, and masked, the definition of pruning."""

import functools

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attending import Attending, Stage
from asvit_jax.sparsity.executions.outputs import Outputs
from asvit_jax.sparsity.gates import straight_through_gate


def dense(model, images, remat=False):
  """The plain ViT: nothing is pruned.

  Args:
    model: a `VisionTransformer`, with or without thresholds.
    images: (b, height, width, 3) normalised images.
    remat: whether the backward pass computes the blocks again instead of keeping their results.

  Returns:
    `Outputs` with no stages: keep and scores are (b, 0, n).
  """
  x = model.embed(images)
  attend = Attending.of(model.arch).dense
  for block in model.blocks[:-1]:
    x, _ = _run(block, x, attend, remat)
  return _outputs(model, x, attend, remat, [], [])


def masked(model, images, gate=straight_through_gate, remat=False):
  """Pruned tokens stay in place but are seen by none: fixed shapes, dynamic masks.

  Before each block of `arch.prune_before`, a patch token stays if it was there before and its score
  in the block just run exceeds the stage's threshold.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    gate: function of scores (b, n) and a threshold () that returns the keep mask (b, n).
    remat: as for `dense`.

  Returns:
    `Outputs`; gradients reach the thresholds through `keep`. What it says of tokens that were
    pruned means nothing.
  """
  x = model.embed(images)
  b, n = x.shape[0], x.shape[1] - 1
  attending = Attending.of(model.arch)
  attend, evidence = attending.dense, None
  keep, sizes = jnp.ones((b, n)), attending.first_sizes(b, n + 1)
  keeps, all_scores = [], []
  for i, block in enumerate(model.blocks):
    if i in model.arch.prune_before:
      # Each threshold answers for its own stage only, as in the authors' code: no gradient reaches
      # an earlier one through this product.
      present = jax.lax.stop_gradient(keep)
      stage = Stage(x, sizes, _with_class_token(present), evidence)
      scores = attending.scores(stage)[:, 1:]
      keep = present * gate(scores, model.thresholds[len(keeps)])
      keeps.append(keep)
      all_scores.append(scores)
      x, sizes = attending.reduce(stage, _with_class_token(keep))
      attend = functools.partial(attending.masked, keep=_with_class_token(keep), sizes=sizes)
    if i < model.arch.depth - 1:
      x, evidence = _run(block, x, attend, remat)
  return _outputs(model, x, attend, remat, keeps, all_scores)


def _with_class_token(keep):
  return jnp.concatenate([jnp.ones((keep.shape[0], 1)), keep], axis=1)


def _run(block, x, attend, remat):
  def run(x):
    return block(x, attend)

  return jax.checkpoint(run)(x) if remat else run(x)


def last_block(model, x, attend, remat=False):
  """The last block, of which the prediction needs the class token only, or all for two heads.

  Args:
    model: a `VisionTransformer`.
    x: (b, n, d) tokens before it, the class token first.
    attend: for `Block`, on (b, n, d) tokens.
    remat: as for `dense`.

  Returns:
    (b, d) class tokens after it, and (b, n, d) all tokens; where only the first are read, `jit`
    computes nothing else.
  """
  block = model.blocks[-1]
  tokens, _ = _run(block, x, attend, remat)
  if model.arch.aux_head:
    return tokens[:, 0], tokens

  def class_row(x):
    return block.rows(x, x[:, :1], attend)[:, 0]

  return (jax.checkpoint(class_row) if remat else class_row)(x), tokens


def _outputs(model, x, attend, remat, keeps, scores):
  """`Outputs` from the tokens before the last block."""
  b, n = x.shape[0], x.shape[1] - 1
  keep = jnp.stack(keeps, axis=1) if keeps else jnp.zeros((b, 0, n))
  scores = jnp.stack(scores, axis=1) if scores else jnp.zeros((b, 0, n))
  class_tokens, x = last_block(model, x, attend, remat)
  class_logits = model.classify(class_tokens)
  aux_logits = model.classify_patches(x[:, 1:]) if model.arch.aux_head else None
  left = keeps[-1] > 0 if keeps else jnp.ones((b, n), bool)
  logits = model.predict(
    class_logits, lambda: jnp.where(left[..., None], aux_logits, -jnp.inf).max(axis=1)
  )
  return Outputs(logits, class_logits, aux_logits, model.norm(x), keep, scores, keep.sum(axis=-1))
