"""The schedule of DynamicViT (arXiv:2106.02034), without its predictor."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from asvit_jax.comparison.methods.fixed import FixedCount
from asvit_jax.sparsity.executions.in_place import masked


class DynamicViT(FixedCount):
  """Keeps the shares r, r² and r³ of the patches before blocks 3, 6 and 9; a method, see `methods`.

  This is *not* DynamicViT itself, in which a small network, trained jointly for 30 epochs, selects
  the tokens. Here the class token's attention, averaged over the heads, selects them without
  training. The schedule, the dropping, and the masked attention in training are DynamicViT's.

  The stages are one block before the paper's (4, 7 and 10), as in DynamicViT for DeiT; if there is
  no block before the first of these, they are the paper's own.
  """

  def architecture(self, paper, merging):
    """The `Architecture` of the paper, with earlier stages and the mean attention as score."""
    del merging
    earlier = tuple(block - 1 for block in paper.prune_before)
    return dataclasses.replace(
      paper,
      score="asvit_jax.comparison.methods.fixed:mean_attention",
      prune_before=earlier if earlier[0] > 0 else paper.prune_before,
    )

  def training(self, counts):
    """The function for fine-tuning: removed tokens are masked, and get gradients by attention."""
    return functools.partial(masked_count, counts=counts)


dynamicvit = DynamicViT()


def masked_count(model, images, counts):
  """`fixed_count` without compaction: removed tokens stay in place, and no token attends to them.

  Args:
    model: a `VisionTransformer` that prunes; its thresholds are not read.
    images: (b, height, width, 3) normalised images.
    counts: static number of patch tokens that each stage keeps.

  Returns:
    `Outputs` of `in_place.masked`.
  """
  left, present = iter(counts), jnp.ones((len(images), model.arch.patches), bool)

  def gate(scores, threshold):
    nonlocal present
    del threshold
    _, top = jax.lax.top_k(jnp.where(present, scores, -jnp.inf), next(left))
    kept = jnp.zeros(scores.shape, bool).at[jnp.arange(len(scores))[:, None], top].set(True)
    present = present & kept
    return present.astype(jnp.float32)

  return masked(model, images, gate)
