"""The layers of a block. They act on the last axis only, and so on any layout of tokens.

Attention itself is an argument: `attend`, a function of (q, k, v), each (..., h, c), that returns
(context, scores). Only that function knows the token layout; `sparsity.pruning` has one for each
execution.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from asvit_jax.vit.architecture import Architecture

truncated_normal = nnx.initializers.truncated_normal(0.02)


def layer_norm(arch: Architecture, *, dtype, rngs):
  """A layer norm over the width d."""
  return nnx.LayerNorm(arch.width, epsilon=arch.norm_epsilon, dtype=dtype, rngs=rngs)


class Attention(nnx.Module):
  """The projections around the attention function."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    linear = dict(kernel_init=truncated_normal, dtype=dtype, rngs=rngs)
    self.qkv = nnx.Linear(arch.width, 3 * arch.width, use_bias=arch.qkv_bias, **linear)
    self.proj = nnx.Linear(arch.width, arch.width, **linear)
    norm = dict(epsilon=arch.norm_epsilon, dtype=dtype, rngs=rngs)
    channels = arch.width // arch.heads
    self.q_norm = nnx.LayerNorm(channels, **norm) if arch.qk_norm else None
    self.k_norm = nnx.LayerNorm(channels, **norm) if arch.qk_norm else None
    self.heads = arch.heads
    self.projected = None  # set in training: (qkv, x) -> qkv(x), with other gradients

  def __call__(self, x, attend):
    """(..., d) -> (..., d) and the scores of `attend`."""
    y = self.qkv(x) if self.projected is None else self.projected(self.qkv, x)
    q, k, v = self._heads(y, 3)
    context, scores = attend(*self._normalized(q, k), v)
    return self.proj(context.reshape(x.shape)), scores

  def rows(self, x, read, attend):
    """The attention's output for the tokens `read`, (..., d), which attend to x, (..., d)."""
    width = x.shape[-1]
    (q,) = self._heads(_part(self.qkv, read, 0, width), 1)
    k, v = self._heads(_part(self.qkv, x, width, 3 * width), 2)
    context, _ = attend(*self._normalized(q, k), v)
    return self.proj(context.reshape(read.shape))

  def _normalized(self, q, k):
    return (q, k) if self.q_norm is None else (self.q_norm(q), self.k_norm(k))

  def _heads(self, y, parts):
    """(..., parts · d) -> `parts` arrays (..., h, c)."""
    # Split before reshaping: a TPU would copy (..., parts, h, c) to change its layout.
    return [part.reshape(*y.shape[:-1], self.heads, -1) for part in jnp.split(y, parts, axis=-1)]


class Mlp(nnx.Module):
  """Two linear layers with an activation between them, or a SwiGLU; see `Architecture`."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    linear = dict(kernel_init=truncated_normal, dtype=dtype, rngs=rngs)
    self.swiglu = arch.swiglu
    self.fc1 = nnx.Linear(arch.width, (1 + self.swiglu) * arch.hidden, **linear)
    norm = dict(epsilon=arch.norm_epsilon, dtype=dtype, rngs=rngs)
    self.norm = nnx.LayerNorm(arch.hidden, **norm) if arch.mlp_norm else None
    self.fc2 = nnx.Linear(arch.hidden, arch.width, **linear)
    self.activation = arch.activation

  def __call__(self, x):
    """(..., d) -> (..., d)."""
    y = self.fc1(x)
    if self.swiglu:
      gate, y = jnp.split(y, 2, axis=-1)
      y = nnx.silu(gate) * y
    else:
      y = ACTIVATIONS[self.activation](y)
    return self.fc2(y if self.norm is None else self.norm(y))


class Block(nnx.Module):
  """A pre-norm transformer block."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    self.norm1 = layer_norm(arch, dtype=dtype, rngs=rngs)
    self.attn = Attention(arch, dtype=dtype, rngs=rngs)
    self.norm2 = layer_norm(arch, dtype=dtype, rngs=rngs)
    self.mlp = Mlp(arch, dtype=dtype, rngs=rngs)
    self.residual_divisor = arch.residual_divisor
    scale = (arch.width, arch.layer_scale_init)
    self.ls1 = LayerScale(*scale) if arch.layer_scale else None
    self.ls2 = LayerScale(*scale) if arch.layer_scale else None
    self.drop_path = None  # set in training, see `drop_path`
    self.fused_mlp = None  # set in training: (block, x) -> the MLP of its norm, by a kernel

  def __call__(self, x, attend):
    """Runs the block.

    Args:
      x: (..., d) tokens, in any layout that `attend` understands.
      attend: the attention function.

    Returns:
      (..., d) tokens and the scores of `attend`.
    """
    x, scores = self.attended(x, attend)
    return self.fed_forward(x), scores

  def attended(self, x, attend):
    """The first half of a block, attention with its residual; otherwise as `__call__`."""
    y, scores = self.attn(self.norm1(x), attend)
    return x + self.branch(y, 0), scores

  def fed_forward(self, x):
    """The second half of a block, the MLP with its residual: (..., d) -> (..., d), by token."""
    y = self.mlp(self.norm2(x)) if self.fused_mlp is None else self.fused_mlp(self, x)
    return x + self.branch(y, 1)

  def rows(self, x, read, attend):
    """Runs the block for some of its tokens only, and computes nothing for the others.

    Args:
      x: (..., d) tokens, in any layout that `attend` understands.
      read: (..., d), the tokens for which the block runs.
      attend: as for `__call__`, but with the queries of `read` only.

    Returns:
      (..., d) `read` after the block; equal to the result of `__call__` up to rounding.
    """
    y = self.attn.rows(self.norm1(x), self.norm1(read), attend)
    return self.fed_forward(read + self.branch(y, 0))

  def branch(self, y, index):
    """What half 0 or 1 of a block adds to its tokens, from its output: (..., d) -> (..., d)."""
    y = y / self.residual_divisor
    layer_scale = (self.ls1, self.ls2)[index]
    y = y if layer_scale is None else layer_scale(y)
    return y if self.drop_path is None else self.drop_path(y, index)


class AttentionPool(nnx.Module):
  """SigLIP's pooling (arXiv:2303.15343): a learned query attends to the patches, then an MLP.

  It belongs to the head, and computes in float32 like it. Names are timm's.
  """

  def __init__(self, arch: Architecture, *, rngs):
    linear = dict(kernel_init=truncated_normal, dtype=jnp.float32, rngs=rngs)
    width = arch.width
    self.latent = nnx.Param(truncated_normal(rngs.params(), (1, 1, width), jnp.float32))
    self.q = nnx.Linear(width, width, **linear)
    self.kv = nnx.Linear(width, 2 * width, **linear)
    self.proj = nnx.Linear(width, width, **linear)
    self.norm = layer_norm(arch, dtype=jnp.float32, rngs=rngs)
    self.mlp = Mlp(arch, dtype=jnp.float32, rngs=rngs)
    self.heads = arch.heads

  def __call__(self, x, weights):
    """Pools tokens.

    Args:
      x: (b, n, d) float32 tokens.
      weights: (b, n), the number of patches that each token stands for, 0 for tokens that are not
        there; at least one is above 0. Gradients reach them.

    Returns:
      (b, 1, d) float32.
    """
    k, v = (part.reshape(*x.shape[:2], self.heads, -1) for part in jnp.split(self.kv(x), 2, -1))
    q = self.q(self.latent[0]).reshape(self.heads, -1)
    logits = jnp.einsum("hc,bnhc->bnh", q * q.shape[-1] ** -0.5, k)
    peak = jnp.where(weights[..., None] > 0, logits, -jnp.inf).max(axis=1, keepdims=True)
    # A weight multiplies its token's share, which is adding its logarithm to the logit.
    share = jnp.exp(jnp.minimum(logits - jax.lax.stop_gradient(peak), 0.0)) * weights[..., None]
    share /= share.sum(axis=1, keepdims=True)
    y = self.proj(jnp.einsum("bnh,bnhc->bhc", share, v).reshape(x.shape[0], 1, -1))
    return y + self.mlp(self.norm(y))


class LayerScale(nnx.Module):
  """A learned factor per channel (arXiv:2103.17239), initially small: 1e-6 in DeiT-III."""

  def __init__(self, width, initial):
    self.gamma = nnx.Param(jnp.full(width, initial, jnp.float32))

  def __call__(self, x):
    """(..., d) -> (..., d)."""
    return x * self.gamma[...].astype(x.dtype)


def gelu(x):
  """The exact GELU, x · Φ(x) (arXiv:1606.08415), for float32 or bfloat16.

  In bfloat16 it is computed in float32 from erf and rounded once; results below 2e-4 have an
  absolute error of at most 1e-6. JAX's own GELU uses erfc, which rounds more than once, and doubles
  the TPU compiler's estimate for the layer (docs/benchmarks.md).
  """
  if x.dtype != jnp.bfloat16:
    return nnx.gelu(x, approximate=False)
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def gelu_tanh(x):
  """GELU's approximation by tanh, `gelu_pytorch_tanh` and Flax's default, rounded once."""
  return nnx.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


def quick_gelu(x):
  """The GELU of OpenAI's CLIP, x · σ(1.702 x), rounded once."""
  wide = x.astype(jnp.float32)
  return (wide * jax.nn.sigmoid(1.702 * wide)).astype(x.dtype)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu}


def _part(linear, x, begin, end):
  """The outputs `begin` to `end` of a linear layer, without computing the others."""
  dtype = linear.dtype
  y = x.astype(dtype) @ linear.kernel[...][:, begin:end].astype(dtype)
  return y if linear.bias is None else y + linear.bias[...][begin:end].astype(dtype)
