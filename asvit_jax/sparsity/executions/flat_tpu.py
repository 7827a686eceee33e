"""Flat execution on a TPU: the blocks run as kernels, `sparsity.kernels`, on the rows there are.

A kernel takes time for the tokens that are kept, whatever their number, and so one program runs any
batch: no widths, no switch. Attention scores come with attention, and a kernel decides what merging
by cost merges; what else a stage decides is plain XLA.
"""

import jax.numpy as jnp

from asvit_jax.sparsity.executions import flat_rows
from asvit_jax.sparsity.kernels import (
  tpu_attention,
  tpu_compaction,
  tpu_copies,
  tpu_embedding,
  tpu_merging,
  tpu_rows,
)
from asvit_jax.sparsity.pruning import AttentionCache, Pruning
from asvit_jax.sparsity.reductions import MergeTokens
from asvit_jax.sparsity.scores import ClassAttention, MergeCost
from asvit_jax.vit.layers import ACTIVATIONS

WIDTHS = (192, 384, 768)
# Sizes of merged tokens are exact in bfloat16 up to here; and every 32 tokens more are one more
# program of attention to compile.
MOST_TOKENS = 256
_GATHER = ClassAttention.gather  # what `tpu_attention` computes


class TPU(flat_rows.Reference):
  """The backend for a TPU; see `flat_backends`.

  Args:
    interpret: whether to interpret the kernels, on any platform.
  """

  name = "TPU kernels"
  dynamic = True
  starts = True
  compacts = True

  def __init__(self, interpret=False):
    self.interpret = interpret

  @property
  def interpreted(self):
    """A copy that runs on any platform, slowly."""
    return TPU(interpret=True)

  def refuses(self, arch, dtype):
    """Why the kernels do not run a network; None if they do."""
    tokens = arch.prefix_tokens + arch.patches
    reasons = {
      f"its width is {arch.width}, not one of {', '.join(map(str, WIDTHS))}": (
        arch.width not in WIDTHS
      ),
      f"its heads have {arch.width // arch.heads} channels, not {tpu_attention.HEAD}": (
        arch.width != arch.heads * tpu_attention.HEAD
      ),
      f"it has {tokens} tokens, over {MOST_TOKENS}": tokens > MOST_TOKENS,
      f"its attention is {arch.attention!r}": arch.attention != "softmax",
      f"its activation is {arch.activation!r}": arch.activation not in ACTIVATIONS,
      f"its MLP is {arch.mlp_ratio:g} times as wide as its tokens, over 4": arch.mlp_ratio > 4,
      "its positions are rotary": bool(arch.rope),
      "it normalizes queries and keys": arch.qk_norm,
      "its MLP is a SwiGLU": arch.swiglu,
      "its MLP has a norm": arch.mlp_norm,
      f"it computes in {dtype}": dtype not in (jnp.float32, jnp.bfloat16),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)

  def attended(self, block, x, layout, pruning, scored):
    """See `Reference.attended`."""
    heads, qkv = block.attn.heads, self._qkv(block, x, layout)
    gathers = getattr(type(pruning.score), "gather", None) is _GATHER
    by_kernel = scored and gathers and not pruning.received
    context = self._attend(qkv, layout, heads, scores=by_kernel)
    cache = None
    if by_kernel:
      context, scores = context
      keys = pruning.mean_keys(self._in_heads(qkv, layout, heads, 1))
      cache = AttentionCache(scores[:, : layout.width], keys)
    elif scored:
      q, k, v = (self._in_heads(qkv, layout, heads, part) for part in range(3))
      mixed = self._in_heads(context, layout, heads)
      cache = pruning.prefix_cache(q, k, v, mixed, layout.count, layout.sizes)
    weights = _projection(block, x.dtype), _gain(block, 0, x.shape[1])
    x = tpu_rows.linear_residual(x, context, layout.total, *weights, interpret=self.interpret)
    return x, cache

  def fed_forward(self, block, x, layout):
    """See `Reference.fed_forward`."""
    up, down = (_linear(linear, x.dtype) for linear in (block.mlp.fc1, block.mlp.fc2))
    return tpu_rows.mlp_residual(
      *(x, layout.total, _norm(block.norm2), up, down, _gain(block, 1, x.shape[1])),
      epsilon=block.norm2.epsilon,
      activation=block.mlp.activation,
      interpret=self.interpret,
    )

  def read(self, block, x, layout, pruning, count):
    """See `Reference.read`."""
    first = int(flat_rows.aligned(count))
    context = self._attend(self._qkv(block, x, layout), layout, block.attn.heads, first=first)
    context = context.reshape(len(layout.start), first, -1)[:, :count, : x.shape[1]]
    read = x[layout.start[:, None] + jnp.arange(count)]
    return block.fed_forward(read + block.branch(block.attn.proj(context), 0))

  def _qkv(self, block, x, layout):
    """The queries, keys and values of rows, as `tpu_attention.attend` takes them."""
    linear, width = _linear(block.attn.qkv, x.dtype), x.shape[1]
    if more := _missing(block.attn.heads):
      kernel, bias = (a.reshape(-1, 3, width) for a in linear)
      kernel, bias = (jnp.pad(a, ((0, 0), (0, 0), (0, more))) for a in (kernel, bias))
      linear = tpu_rows.Linear(kernel.reshape(width, -1), bias.reshape(-1))
    return tpu_rows.norm_linear(
      *(x, layout.total, _norm(block.norm1), linear),
      epsilon=block.norm1.epsilon,
      interpret=self.interpret,
    )

  def _attend(self, qkv, layout, heads, **options):
    return tpu_attention.attend(
      *(qkv, layout.start, layout.count, _bias(layout)),
      heads=heads,
      width=int(flat_rows.aligned(layout.width)),
      interpret=self.interpret,
      **options,
    )

  def windows(self, x, layout):
    """See `Reference.windows`; the rows are copied, not gathered."""
    return self._windows(x, layout)

  def embedded(self, model, images):
    """See `Reference.embedded`; `tpu_embedding.IMAGES` images at once, if these divide them."""
    b, arch = len(images), model.arch
    if b % tpu_embedding.IMAGES:
      return tpu_copies.padded(model.embed(images), interpret=self.interpret)
    patches = model.patches(images)
    prefix = model.prefix()[0] if arch.prefix_tokens else patches[0, :0]
    position = jnp.zeros((arch.prefix_tokens + arch.patches, arch.width), patches.dtype)
    if arch.pos_embed:
      position = model.pos_embed[0].astype(patches.dtype)
    # A convolution on a TPU leaves its result so, and XLA copies nothing.
    patches = patches.swapaxes(0, 1)
    x = tpu_embedding.embedded(patches, prefix, position, interpret=self.interpret)
    return model.norm_pre(x) if arch.norm_pre else x

  def merges(self, model, index, x, layout, cache):
    """See `Reference.merges`; of networks that `tpu_merging` decides about."""
    if not decides(model.arch):
      return None
    pruning = Pruning.of(model.arch)
    decided = tpu_merging.merges(
      *(x, layout.start, layout.count, _widened(cache.score, 0.0), _sizes(layout)),
      *(_widened(layout.position, 0), model.thresholds[index]),
      exponents=pruning.exponents,
      prefix=pruning.prefix_tokens,
      interpret=self.interpret,
    )
    return flat_rows.Merges(*(a[:, : layout.width] for a in decided))

  def compacted(self, moving, layout):
    """The rows after a stage, from those before it: a `flat_rows.Moving` -> (length, d)."""
    before = moving.layout
    return tpu_compaction.compact(
      moving.x,
      (before.start, before.count),
      (layout.start, layout.count),
      _widened(moving.into, -1),
      None if before.sizes is None else _sizes(before),
      interpret=self.interpret,
    )

  def _in_heads(self, x, layout, heads, part=0):
    """A part of the channels of rows, in windows: (b, n, heads, channels of a head)."""
    channels = tpu_attention.pairs_of(heads) * tpu_attention.LANES
    windows = self._windows(x, layout, (part * channels, channels))
    return windows.reshape(*windows.shape[:2], -1, tpu_attention.HEAD)[:, :, :heads]

  def _windows(self, x, layout, columns=None):
    """Some columns, (first, number), of `windows`."""
    return tpu_copies.windows(
      *(x, layout.start, layout.count),
      width=layout.width,
      columns=columns,
      interpret=self.interpret,
    )


def decides(arch):
  """Whether `tpu_merging` decides what the stages of a network merge."""
  pruning = Pruning.of(arch)
  if (type(pruning.score), type(pruning.reduction)) != (MergeCost, MergeTokens):
    return False
  return arch.count_multiple == 1 and not arch.least_patches


def _bias(layout):
  """(b, width) bias of the keys: the logarithms of the tokens' sizes; None if nothing is merged."""
  if layout.sizes is None:
    return None
  sizes = jnp.log(jnp.where(layout.present, layout.sizes, 1.0))
  return _widened(jnp.where(layout.present, sizes, tpu_attention.NEVER), tpu_attention.NEVER)


def _sizes(layout):
  """(b, width) sizes of the tokens, 0 where there is none."""
  return _widened(jnp.where(layout.present, layout.sizes, 0.0), 0.0)


def _widened(a, value):
  """(b, n) -> (b, width), the width of windows in kernels."""
  more = int(flat_rows.aligned(a.shape[1])) - a.shape[1]
  return jnp.pad(a, ((0, 0), (0, more)), constant_values=value)


def _missing(heads):
  """Channels of the head that makes their number even, if it is odd."""
  return tpu_attention.pairs_of(heads) * tpu_attention.LANES - heads * tpu_attention.HEAD


def _norm(norm):
  return tpu_rows.Norm(norm.scale[...], norm.bias[...])


def _linear(linear, dtype):
  kernel = linear.kernel[...].astype(dtype)
  bias = jnp.zeros(kernel.shape[1]) if linear.bias is None else linear.bias[...]
  return tpu_rows.Linear(kernel, bias)


def _projection(block, dtype):
  """The projection after attention, from the channels of whole pairs of heads."""
  kernel, bias = _linear(block.attn.proj, dtype)
  return tpu_rows.Linear(jnp.pad(kernel, ((0, _missing(block.attn.heads)), (0, 0))), bias)


def _gain(block, index, width):
  """(width,) factors of a half of a block before its residual."""
  scale = (block.ls1, block.ls2)[index]
  gamma = jnp.ones(width) if scale is None else scale.gamma[...]
  return gamma / block.residual_divisor
