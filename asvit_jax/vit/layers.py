"""The layers of a block. They act on the last axis only, so any arrangement of tokens runs.

What mixes tokens is handed in: `attend`, a function of (q, k, v), each (..., h, c), that returns
(context, scores); `sparsity.pruning` has those of the executions.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from asvit_jax.vit.architecture import Architecture

truncated_normal = nnx.initializers.truncated_normal(0.02)


def layer_norm(arch: Architecture, *, dtype, rngs):
  """A layer norm over the width."""
  return nnx.LayerNorm(arch.width, epsilon=arch.norm_epsilon, dtype=dtype, rngs=rngs)


class Attention(nnx.Module):
  """Projections around the function that mixes tokens."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    linear = dict(kernel_init=truncated_normal, dtype=dtype, rngs=rngs)
    self.qkv = nnx.Linear(arch.width, 3 * arch.width, use_bias=arch.qkv_bias, **linear)
    self.proj = nnx.Linear(arch.width, arch.width, **linear)
    self.heads = arch.heads

  def __call__(self, x, attend):
    """(..., d) -> (..., d) and the scores that `attend` returns."""
    q, k, v = self._heads(self.qkv(x), 3)
    context, scores = attend(q, k, v)
    return self.proj(context.reshape(x.shape)), scores

  def rows(self, x, read, attend):
    """What only the tokens `read`, (..., d), receive of the tokens x, (..., d)."""
    width = x.shape[-1]
    (q,) = self._heads(_part(self.qkv, read, 0, width), 1)
    k, v = self._heads(_part(self.qkv, x, width, 3 * width), 2)
    context, _ = attend(q, k, v)
    return self.proj(context.reshape(read.shape))

  def _heads(self, y, parts):
    """(..., parts · d) -> `parts` arrays (..., h, c)."""
    # Split first: a TPU would copy (..., parts, h, c) to bring it into another order.
    return [part.reshape(*y.shape[:-1], self.heads, -1) for part in jnp.split(y, parts, axis=-1)]


class Mlp(nnx.Module):
  """Two linear layers with a GELU between them."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    linear = dict(kernel_init=truncated_normal, dtype=dtype, rngs=rngs)
    self.fc1 = nnx.Linear(arch.width, arch.hidden, **linear)
    self.fc2 = nnx.Linear(arch.hidden, arch.width, **linear)

  def __call__(self, x):
    """(..., d) -> (..., d)."""
    return self.fc2(gelu(self.fc1(x)))


class Block(nnx.Module):
  """A pre-norm transformer block."""

  def __init__(self, arch: Architecture, *, dtype, rngs):
    self.norm1 = layer_norm(arch, dtype=dtype, rngs=rngs)
    self.attn = Attention(arch, dtype=dtype, rngs=rngs)
    self.norm2 = layer_norm(arch, dtype=dtype, rngs=rngs)
    self.mlp = Mlp(arch, dtype=dtype, rngs=rngs)
    self.residual_divisor = arch.residual_divisor
    self.ls1 = LayerScale(arch.width) if arch.layer_scale else None
    self.ls2 = LayerScale(arch.width) if arch.layer_scale else None
    self.drop_path = None  # see `drop_path`: what training may do to a branch

  def __call__(self, x, attend):
    """One block.

    Args:
      x: (..., d) tokens, in any arrangement that `attend` understands.
      attend: what mixes them.

    Returns:
      (..., d) tokens and the scores of `attend`.
    """
    x, scores = self.attended(x, attend)
    return self.fed_forward(x), scores

  def attended(self, x, attend):
    """The first half of a block, up to where some methods merge tokens; as `__call__`."""
    y, scores = self.attn(self.norm1(x), attend)
    return x + self._branch(y, 0), scores

  def fed_forward(self, x):
    """The second half of a block: (..., d) tokens -> (..., d), each by itself."""
    return x + self._branch(self.mlp(self.norm2(x)), 1)

  def rows(self, x, read, attend):
    """The block for some of its tokens only: what nobody reads is not computed.

    Args:
      x: (..., d) tokens, in any arrangement that `attend` understands.
      read: (..., d), those of them that are wanted.
      attend: as above, but its queries are those of `read` only.

    Returns:
      `read` after the block; as `__call__` gives it, up to rounding.
    """
    y = self.attn.rows(self.norm1(x), self.norm1(read), attend)
    return self.fed_forward(read + self._branch(y, 0))

  def _branch(self, y, index):
    y = y / self.residual_divisor
    layer_scale = (self.ls1, self.ls2)[index]
    y = y if layer_scale is None else layer_scale(y)
    return y if self.drop_path is None else self.drop_path(y, index)


class LayerScale(nnx.Module):
  """A learned factor a channel, small at first (arXiv:2103.17239); 1e-6 as DeiT-III begins."""

  def __init__(self, width):
    self.gamma = nnx.Param(jnp.full(width, 1e-6, jnp.float32))

  def __call__(self, x):
    """(..., d) -> (..., d)."""
    return x * self.gamma[...].astype(x.dtype)


def gelu(x):
  """The exact GELU, x · Φ(x), (arXiv:1606.08415) of float32 or bfloat16.

  In bfloat16 it is the float32 value rounded once, or within 1e-6 where that is less than 2e-4, as
  it is computed from erf: JAX's own, from erfc, doubles what the TPU's compiler estimates for the
  layer (docs/benchmarks.md), and rounds more than once.
  """
  if x.dtype != jnp.bfloat16:
    return nnx.gelu(x, approximate=False)
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def _part(linear, x, begin, end):
  """`linear`, of which only the outputs from `begin` to `end` are computed."""
  dtype = linear.dtype
  y = x.astype(dtype) @ linear.kernel[...][:, begin:end].astype(dtype)
  return y if linear.bias is None else y + linear.bias[...][begin:end].astype(dtype)
