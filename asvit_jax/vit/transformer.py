"""The vision transformer: its parameters, and the parts of a forward pass around the blocks.

Module names follow timm's, which keeps the import of weights a plain table. `sparsity.executions`
run it.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from asvit_jax.vit.architecture import Architecture
from asvit_jax.vit.layers import Block, layer_norm, truncated_normal
from asvit_jax.vit.stems import STEMS


class VisionTransformer(nnx.Module):
  """The parameters of a ViT, dense or pruned; `executions` runs them.

  Args:
    arch: the dimensions.
    dtype: compute type of the stem and the blocks, float32 or bfloat16. Parameters, the last norm
      and the heads are float32 in both.
    rngs: where the initial parameters come from.
  """

  def __init__(self, arch: Architecture, *, dtype=jnp.float32, rngs: nnx.Rngs):
    self.arch = arch
    self.dtype = jnp.dtype(dtype)
    self.patch_embed = STEMS[arch.stem](arch, dtype=dtype, rngs=rngs)
    self.cls_token = nnx.Param(truncated_normal(rngs.params(), (1, 1, arch.width), jnp.float32))
    self.pos_embed = nnx.Param(
      truncated_normal(rngs.params(), (1, 1 + arch.patches, arch.width), jnp.float32)
    )
    self.blocks = nnx.List([Block(arch, dtype=dtype, rngs=rngs) for _ in range(arch.depth)])
    # In bfloat16 logits of many classes tie: heads see and give float32 whatever the compute type.
    self.norm = layer_norm(arch, dtype=jnp.float32, rngs=rngs)
    head = functools.partial(
      nnx.Linear,
      arch.width,
      arch.classes,
      kernel_init=truncated_normal,
      dtype=jnp.float32,
      rngs=rngs,
    )
    self.head = head()
    if arch.aux_head:
      self.aux_head = head()
    if arch.prune_before:
      self.thresholds = nnx.Param(initial_thresholds(arch.stages))

  def embed(self, images):
    """Normalised images (b, height, width, 3) -> (b, 1 + n, d) tokens, the class token first."""
    x = self.patch_embed(images.astype(self.dtype))
    cls_token = jnp.broadcast_to(self.cls_token[...], (x.shape[0], 1, x.shape[-1]))
    x = jnp.concatenate([cls_token.astype(self.dtype), x], axis=1)
    return x + self.pos_embed[...].astype(self.dtype)

  def classify(self, class_tokens):
    """(..., d) class tokens after the last block -> (..., classes) float32 logits."""
    return self.head(self.norm(class_tokens))

  def classify_patches(self, tokens):
    """(..., d) patch tokens after the last block -> (..., classes) auxiliary logits, as above."""
    return self.aux_head(self.norm(tokens))

  def predict(self, class_logits, best_patch_logits):
    """The prediction of all heads, LV-ViT's (arXiv:2104.10858) where there are two.

    Args:
      class_logits: (b, classes) of `classify`.
      best_patch_logits: function that returns (b, classes), the largest of `classify_patches` over
        the patch tokens that are left, -inf where none is; called where there is such a head.

    Returns:
      (b, classes) logits.
    """
    if not self.arch.aux_head:
      return class_logits
    best = best_patch_logits()
    return class_logits + 0.5 * jnp.where(jnp.isfinite(best), best, 0.0)


def initial_thresholds(stages):
  """(stages,) float32 to start training from: 0.001, 0.002, 0.003 and so on, as published."""
  return 1e-3 * jnp.arange(1, stages + 1, dtype=jnp.float32)


def initial_params(arch: Architecture, *, seed=0):
  """Random parameters, a nested dictionary of float32 arrays, made in one compiled call."""
  created = nnx.jit(lambda: VisionTransformer(arch, rngs=nnx.Rngs(seed)))()
  return nnx.to_pure_dict(nnx.split(created)[1])


def model(arch: Architecture, params, *, dtype=jnp.float32):
  """The network with given parameters; dense where they have no thresholds."""
  arch = arch if prunes(params) else arch.dense
  return nnx.merge(_abstract(arch, jnp.dtype(dtype))[0], params)


def specs(arch: Architecture, budgets=0):
  """The parameters as `jax.ShapeDtypeStruct`s: nothing is allocated.

  Args:
    arch: the dimensions.
    budgets: number of budgets that there are thresholds for; 0 for one set of them.
  """
  found = dict(_abstract(arch, jnp.dtype("float32"))[1])
  if budgets and prunes(found):
    found["thresholds"] = jax.ShapeDtypeStruct((budgets, arch.stages), jnp.float32)
  return found


def prunes(params):
  """Whether these are parameters of a network that prunes."""
  return "thresholds" in params


def without_thresholds(params):
  """The parameters of the dense network."""
  return {name: value for name, value in params.items() if name != "thresholds"}


@functools.cache
def _abstract(arch, dtype):
  """(graphdef, params) without allocating."""
  graphdef, state = nnx.split(
    nnx.eval_shape(lambda: VisionTransformer(arch, dtype=dtype, rngs=nnx.Rngs(0)))
  )
  return graphdef, nnx.to_pure_dict(state)
