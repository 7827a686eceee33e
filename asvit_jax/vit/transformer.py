"""The vision transformer: its parameters, and the parts of a forward pass around the blocks.

Module names follow timm's, which keeps the import of weights a plain table. `sparsity.executions`
run it.
"""

import dataclasses
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

  Attributes:
    counts: patches that each stage keeps of every image in fixed execution, and about which packed
      has its widths; () where not known.
  """

  def __init__(self, arch: Architecture, *, dtype=jnp.float32, rngs: nnx.Rngs):
    self.arch = arch
    self.dtype = jnp.dtype(dtype)
    self.counts = ()
    self.patch_embed = STEMS[arch.stem](arch, dtype=dtype, rngs=rngs)
    self.cls_token = nnx.Param(truncated_normal(rngs.params(), (1, 1, arch.width), jnp.float32))
    tokens = arch.prefix_tokens + arch.patches
    self.pos_embed = nnx.Param(
      truncated_normal(rngs.params(), (1, tokens, arch.width), jnp.float32)
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
    if arch.dist_token:
      self.dist_token = nnx.Param(truncated_normal(rngs.params(), (1, 1, arch.width), jnp.float32))
    if arch.dist_head:
      self.head_dist = head()
    if arch.aux_head:
      self.aux_head = head()
    if arch.prune_before:
      self.thresholds = nnx.Param(initial_thresholds(arch.stages))

  def embed(self, images):
    """Normalised images (b, height, width, 3) -> (b, prefix + n, d) tokens, the class token first.

    After it comes the distillation token, where there is one, then the patches.
    """
    x = self.patch_embed(images.astype(self.dtype))
    prefix = self.cls_token[...]
    if self.arch.dist_token:
      prefix = jnp.concatenate([prefix, self.dist_token[...]], axis=1)
    prefix = jnp.broadcast_to(prefix, (x.shape[0], *prefix.shape[1:]))
    x = jnp.concatenate([prefix.astype(self.dtype), x], axis=1)
    return x + self.pos_embed[...].astype(self.dtype)

  def classify(self, read):
    """The float32 logits of the tokens that the prediction reads.

    Args:
      read: (b, read, d), `Architecture.read_tokens` of each image after the last block.

    Returns:
      (b, classes): the class token's, the mean of both heads' where the distillation token has one.
    """
    x = self.norm(read)
    logits = self.head(x[:, 0])
    return (logits + self.head_dist(x[:, 1])) / 2 if self.arch.dist_head else logits

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


def model(arch: Architecture, params, *, dtype=jnp.float32, counts=()):
  """The network with given parameters; dense where they have no thresholds.

  Args:
    arch: the dimensions.
    params: nested dictionary of arrays.
    dtype: compute type.
    counts: see `VisionTransformer`.
  """
  arch = arch if prunes(params) else arch.dense
  merged = nnx.merge(_abstract(arch, jnp.dtype(dtype))[0], params)
  merged.counts = tuple(counts)
  return merged


def specs(arch: Architecture, budgets=0):
  """The parameters as `jax.ShapeDtypeStruct`s: nothing is allocated.

  Args:
    arch: the dimensions.
    budgets: number of budgets that there are thresholds for; 0 for one set of them.
  """
  # Of one block, as all are alike: to build hundreds takes minutes, and a file can ask for them.
  one = dataclasses.replace(arch, depth=1, prune_before=(), stage_weights=())
  found = dict(_abstract(one, jnp.dtype("float32"))[1])
  found["blocks"] = dict.fromkeys(range(arch.depth), found["blocks"][0])
  if arch.prune_before:
    shape = (budgets, arch.stages) if budgets else (arch.stages,)
    found["thresholds"] = jax.ShapeDtypeStruct(shape, jnp.float32)
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
