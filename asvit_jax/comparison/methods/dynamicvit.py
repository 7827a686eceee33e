"""The schedule of DynamicViT (arXiv:2106.02034), without its predictor."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from asvit_jax.comparison.methods.fixed import FixedCount
from asvit_jax.sparsity.executions.in_place import masked


class DynamicViT(FixedCount):
  """See `methods`: before blocks 3, 6 and 9 the shares r, r² and r³ of the patches stay.

  *Not* DynamicViT itself: there, a small network that is trained along, for 30 epochs, says which
  tokens stay. Here the class token's attention says it, averaged over the heads, which needs no
  training; so this is its schedule, its way of dropping, and its masked attention in training.

  The blocks are those before the paper's, 4, 7 and 10, by one, as in DynamicViT for DeiT; where
  nothing comes before the first of these, the paper's own.
  """

  def architecture(self, paper, merging):
    """See `methods`."""
    del merging
    earlier = tuple(block - 1 for block in paper.prune_before)
    return dataclasses.replace(
      paper,
      score="asvit_jax.comparison.mean_attention:mean_attention",
      prune_before=earlier if earlier[0] > 0 else paper.prune_before,
    )

  def training(self, counts):
    """Tokens that go are masked, not taken out; their gradients are those of attention alone."""
    return functools.partial(masked_count, counts=counts)


dynamicvit = DynamicViT()


def masked_count(model, images, counts):
  """`fixed_count` in fixed shapes: tokens that go stay in place, and are seen by none.

  Args:
    model: a `VisionTransformer` that prunes; its thresholds are not read.
    images: (b, height, width, 3) normalised images.
    counts: patch tokens that each stage keeps, a static number each.

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
