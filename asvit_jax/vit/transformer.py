"""The vision transformer: its parameters, and the forward pass before and after the blocks.

Modules are named as in timm, so that importing weights needs only a table. `sparsity.executions`
run the network.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from asvit_jax.core.finite import finite
from asvit_jax.vit.architecture import Architecture
from asvit_jax.vit.layers import AttentionPool, Block, layer_norm, truncated_normal
from asvit_jax.vit.stems import STEMS


class VisionTransformer(nnx.Module):
  """The parameters of a ViT, dense or pruned; `executions` run it.

  Args:
    arch: the dimensions.
    dtype: compute type of the stem and the blocks, float32 or bfloat16. Parameters, the last norm
      and the heads are always float32.
    rngs: random streams for the initial parameters.

  Attributes:
    counts: number of patches that each stage keeps of every image in fixed execution, and around
      which packed execution chooses its widths; () if unknown.
  """

  def __init__(self, arch: Architecture, *, dtype=jnp.float32, rngs: nnx.Rngs):
    self.arch = arch
    self.dtype = jnp.dtype(dtype)
    self.counts = ()
    self.patch_embed = STEMS[arch.stem](arch, dtype=dtype, rngs=rngs)
    if arch.class_token:
      self.cls_token = nnx.Param(truncated_normal(rngs.params(), (1, 1, arch.width), jnp.float32))
    if arch.pos_embed:
      tokens = arch.prefix_tokens + arch.patches
      self.pos_embed = nnx.Param(
        truncated_normal(rngs.params(), (1, tokens, arch.width), jnp.float32)
      )
    self.blocks = nnx.List([Block(arch, dtype=dtype, rngs=rngs) for _ in range(arch.depth)])
    # Heads always compute in float32: in bfloat16, the logits of many classes tie.
    norm = functools.partial(layer_norm, arch, dtype=jnp.float32, rngs=rngs)
    if arch.norm_after_pool:
      self.fc_norm = norm()
    else:
      self.norm = norm()
    if arch.pool == "map":
      self.attn_pool = AttentionPool(arch, rngs=rngs)
    linear = functools.partial(
      nnx.Linear, kernel_init=truncated_normal, dtype=jnp.float32, rngs=rngs
    )
    head = functools.partial(linear, arch.width, arch.features, use_bias=arch.head == "classifier")
    if arch.head != "none":
      self.head = head()
    if arch.text_width:
      self.text_head = linear(arch.text_width, arch.classes)
    if arch.norm_pre:
      self.norm_pre = layer_norm(arch, dtype=dtype, rngs=rngs)
    if arch.registers:
      self.reg_token = nnx.Param(
        truncated_normal(rngs.params(), (1, arch.registers, arch.width), jnp.float32)
      )
    if arch.dist_token:
      self.dist_token = nnx.Param(truncated_normal(rngs.params(), (1, 1, arch.width), jnp.float32))
    if arch.dist_head:
      self.head_dist = head()
    if arch.aux_head:
      self.aux_head = head()
    if arch.prune_before:
      self.thresholds = nnx.Param(initial_thresholds(arch.stages))

  def embed(self, images):
    """Normalised images (b, height, width, 3) -> (b, prefix + n, d) tokens.

    The class token comes first, then the distillation token and the registers, if any, then the
    patches.
    """
    x, arch = self.patches(images), self.arch
    if arch.prefix_tokens:
      prefix = self.prefix()
      x = jnp.concatenate([jnp.broadcast_to(prefix, (x.shape[0], *prefix.shape[1:])), x], axis=1)
    x = x + self.pos_embed[...].astype(self.dtype) if arch.pos_embed else x
    return self.norm_pre(x) if arch.norm_pre else x

  def patches(self, images):
    """Normalised images (b, height, width, 3) -> (b, n, d) patches, without their positions."""
    return self.patch_embed(images.astype(self.dtype))

  def prefix(self):
    """The (1, prefix, d) tokens before the patches; there is at least one."""
    tokens, arch = [], self.arch
    tokens += [self.cls_token[...]] if arch.class_token else []
    tokens += [self.dist_token[...]] if arch.dist_token else []
    tokens += [self.reg_token[...]] if arch.registers else []
    prefix = jnp.concatenate(tokens, axis=1) if len(tokens) > 1 else tokens[0]
    return prefix.astype(self.dtype)

  def normed(self, tokens):
    """(..., d) tokens after the last block -> float32, after the final norm if they have one."""
    return tokens.astype(jnp.float32) if self.arch.norm_after_pool else self.norm(tokens)

  def pool(self, tokens, sizes=None, present=None):
    """The values that `classify` reads, from the tokens after the last block.

    Args:
      tokens: (b, n, d), all tokens; for pool "token" at least the first `Architecture.read_tokens`.
      sizes: (b, n) number of patches that each token stands for; None if all are 1.
      present: (b, n) mask of the tokens that are there, None for all; gradients reach it.

    Returns:
      (b, read, d): the tokens themselves for pool "token", else one float32 row.
    """
    if self.arch.pool == "token":
      return tokens
    x = self.normed(tokens)
    weights = jnp.ones(x.shape[:2], jnp.float32)
    if present is not None:
      weights = present.astype(jnp.float32)
      sizes = sizes if sizes is None else jnp.where(present > 0, sizes, 1.0)
    weights = weights if sizes is None else weights * sizes
    if prefix := self.arch.prefix_tokens:
      weights = jnp.where(jnp.arange(x.shape[1]) < prefix, 0.0, weights)
    if self.arch.pool == "map":
      return self.attn_pool(x, weights)
    total = jnp.einsum("bn,bnd->bd", weights, x, precision="highest")
    return (total / weights.sum(axis=1, keepdims=True))[:, None]

  def classify(self, read):
    """The float32 logits from what the prediction reads.

    Args:
      read: (b, read, d), the result of `pool`.

    Returns:
      (b, classes) logits, the mean of both heads if there are two; without a classifier the
      features of the image, see `Architecture.head`.
    """
    if self.arch.pool == "token":
      x = self.norm(read)
    else:
      x = self.fc_norm(read) if self.arch.norm_after_pool else read
    if self.arch.head == "none":
      return self._compared(x[:, 0])
    logits = self._compared(self.head(x[:, 0]))
    return (logits + self.head_dist(x[:, 1])) / 2 if self.arch.dist_head else logits

  def _compared(self, features):
    """(b, features), the output of `head` -> (b, classes): compared with the texts if there are."""
    if not self.arch.text_width:
      return features
    length = jnp.sqrt(jnp.square(features).sum(axis=-1, keepdims=True))
    return self.text_head(features / jnp.maximum(length, 1e-12))

  def classify_patches(self, tokens):
    """(..., d) patch tokens after the last block -> (..., classes) auxiliary logits."""
    return self.aux_head(self.norm(tokens))

  def predict(self, class_logits, best_patch_logits):
    """The prediction of all heads; LV-ViT's (arXiv:2104.10858) if there is an auxiliary head.

    Args:
      class_logits: (b, classes) logits of `classify`.
      best_patch_logits: function that returns (b, classes), the maximum of `classify_patches` over
        the remaining patch tokens, -inf if there are none; called only if there is such a head.

    Returns:
      (b, classes) logits.
    """
    if not self.arch.aux_head:
      return class_logits
    best = best_patch_logits()
    return class_logits + 0.5 * jnp.where(finite(best), best, 0.0)


def initial_thresholds(stages):
  """(stages,) float32 initial thresholds for training: 0.001, 0.002, 0.003, …, as published."""
  return 1e-3 * jnp.arange(1, stages + 1, dtype=jnp.float32)


def initial_params(arch: Architecture, *, seed=0):
  """Random parameters, a nested dictionary of float32 arrays, created in one compiled call."""
  return nnx.to_pure_dict(nnx.split(_initializer(arch, seed)())[1])


@functools.lru_cache(8)
def _initializer(arch, seed):
  """The compiled function that creates a network; another one each time would compile again."""
  return nnx.jit(lambda: VisionTransformer(arch, rngs=nnx.Rngs(seed)))


def model(arch: Architecture, params, *, dtype=jnp.float32, counts=()):
  """The network with given parameters; dense if they have no thresholds.

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
  """The parameters as `jax.ShapeDtypeStruct`s, without allocating them.

  Args:
    arch: the dimensions.
    budgets: number of budgets with thresholds; 0 for a single set of thresholds.
  """
  # Build one block, as all are alike: hundreds would take minutes, and a file may ask for them.
  one = dataclasses.replace(arch, depth=1, prune_before=(), stage_weights=())
  found = dict(_abstract(one, jnp.dtype("float32"))[1])
  found["blocks"] = dict.fromkeys(range(arch.depth), found["blocks"][0])
  if arch.prune_before:
    shape = (budgets, arch.stages) if budgets else (arch.stages,)
    found["thresholds"] = jax.ShapeDtypeStruct(shape, jnp.float32)
  return found


def prunes(params):
  """Whether the parameters are those of a network that prunes."""
  return "thresholds" in params


def without_thresholds(params):
  """The parameters of the dense network."""
  return {name: value for name, value in params.items() if name != "thresholds"}


@functools.cache
def _abstract(arch, dtype):
  """(graphdef, parameters as shapes), without allocating."""
  # A stem of one's own may need more of Flax's streams than parameters.
  streams = functools.partial(nnx.Rngs, 0) if ":" in arch.stem else _OneKey
  graphdef, state = nnx.split(
    nnx.eval_shape(lambda: VisionTransformer(arch, dtype=dtype, rngs=streams()))
  )
  return graphdef, nnx.to_pure_dict(state)


class _OneKey:
  """Random streams where shapes alone are asked for.

  Counting the keys, as `nnx.Rngs` does, takes longer than all else of tracing a network.
  """

  def params(self):
    """A key, always the same one."""
    return jax.random.key(0)
