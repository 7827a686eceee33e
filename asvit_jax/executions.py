"""How a network runs: dense, masked or packed, from the same parameters and the same blocks.

| execution | tokens live in | for |
|---|---|---|
| dense  | (b, n, d) | the teacher, the baseline |
| masked | (b, n, d) and a keep mask (b, n) | training; the definition of pruning |
| packed | (rows, d): the kept tokens of the batch, back to back | inference; see `packing` |
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from asvit_jax import attention, pruning


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
  """What a forward pass returns; `jit` computes only what is read.

  Attributes:
    logits: (b, classes) float32, the prediction.
    class_logits: (b, classes) float32 of the class token alone; None where packed. They differ
      from `logits` where there is an auxiliary head.
    aux_logits: (b, n, classes) float32 of the patch tokens; None without auxiliary head, or packed.
    tokens: (b, 1 + n, d) tokens after the last block and the final norm, the class token first;
      None where packed.
    keep: (b, stages, n) float32, 1 for the patch tokens that each stage keeps.
    scores: (b, stages, n) float32 scores that decided it; None where packed.
    kept: (b, stages) float32 number of kept patch tokens, differentiable like `keep`.
  """

  logits: jax.Array
  class_logits: jax.Array | None
  aux_logits: jax.Array | None
  tokens: jax.Array | None
  keep: jax.Array
  scores: jax.Array | None
  kept: jax.Array


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
  for block in model.blocks:
    x, _ = _run(block, x, attention.dense, remat)
  return _outputs(model, x, [], [])


def masked(model, images, gate=pruning.straight_through_gate, remat=False):
  """Pruned tokens stay in place but are seen by none: fixed shapes, dynamic masks.

  Before each block of `arch.prune_before`, a patch token stays if it was there before and its score
  in the block just run exceeds the stage's threshold.

  Args:
    model: a `VisionTransformer` with thresholds.
    images: (b, height, width, 3) normalised images.
    gate: function of scores (b, n) and a threshold () that returns the keep mask (b, n).
    remat: as for `dense`.

  Returns:
    `Outputs`; gradients reach the thresholds through `keep`.
  """
  x = model.embed(images)
  b, n = x.shape[0], x.shape[1] - 1
  mix, scores = attention.dense, None
  keep = jnp.ones((b, n))
  keeps, all_scores = [], []
  for i, block in enumerate(model.blocks):
    if i in model.arch.prune_before:
      # Each threshold answers for its own stage only, as in the authors' code: no gradient reaches
      # an earlier one through this product.
      keep = jax.lax.stop_gradient(keep) * gate(scores, model.thresholds[len(keeps)])
      keeps.append(keep)
      all_scores.append(scores)
      with_class = jnp.concatenate([jnp.ones((b, 1)), keep], axis=1)
      mix = functools.partial(attention.masked, keep=with_class)
    x, scores = _run(block, x, mix, remat)
  return _outputs(model, x, keeps, all_scores)


def _run(block, x, mix, remat):
  def run(x):
    return block(x, mix)

  return jax.checkpoint(run)(x) if remat else run(x)


def predict(class_logits, aux_best):
  """LV-ViT's prediction (arXiv:2104.10858) from both heads.

  Args:
    class_logits: (b, classes) of the class token.
    aux_best: (b, classes) largest auxiliary logit among the kept patch tokens, -inf without any.

  Returns:
    (b, classes) logits.
  """
  return class_logits + 0.5 * jnp.where(jnp.isfinite(aux_best), aux_best, 0.0)


def _outputs(model, x, keeps, scores):
  b, n = x.shape[0], x.shape[1] - 1
  keep = jnp.stack(keeps, axis=1) if keeps else jnp.zeros((b, 0, n))
  scores = jnp.stack(scores, axis=1) if scores else jnp.zeros((b, 0, n))
  logits = class_logits = model.classify(x[:, 0])
  aux_logits = None
  if model.arch.aux_head:
    aux_logits = model.classify_patches(x[:, 1:])
    seen = keeps[-1] > 0 if keeps else jnp.ones((b, n), bool)
    aux_best = jnp.where(seen[..., None], aux_logits, -jnp.inf).max(axis=1)
    logits = predict(class_logits, aux_best)
  return Outputs(logits, class_logits, aux_logits, model.norm(x), keep, scores, keep.sum(axis=-1))
