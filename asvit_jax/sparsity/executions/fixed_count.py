"""A baseline: the same number of tokens in every image, those with the highest scores."""

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attending import Attending
from asvit_jax.sparsity.executions.outputs import Outputs


def fixed_count(model, images, counts):
  """Keeps a static number of tokens at each stage; the others are dropped.

  Args:
    model: a `VisionTransformer` that prunes; its thresholds are not read.
    images: (b, height, width, 3) normalised images.
    counts: patch tokens that each stage keeps, a static number each.

  Returns:
    `Outputs` with logits only.
  """
  x = model.embed(images)
  attend = Attending.of(model.arch).dense
  scores, counts = None, iter(counts)
  for i, block in enumerate(model.blocks):
    if i in model.arch.prune_before:
      _, top = jax.lax.top_k(scores, 1 + next(counts))  # the class token's score is infinite
      x = jnp.take_along_axis(x, top[..., None], axis=1)
    x, scores = block(x, attend)
  logits = model.predict(
    model.classify(x[:, 0]), lambda: model.classify_patches(x[:, 1:]).max(axis=1)
  )
  return Outputs(logits)
