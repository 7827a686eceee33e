"""What training steps run by kernels on a TPU, if `config.model.kernels` is on.

Attention and MLPs, with their gradients. Kernels are another way to compute a network, not another
network: neither weights nor checkpoints know of them.
"""

import contextlib
import contextvars
import dataclasses

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attentions import Softmax
from asvit_jax.sparsity.kernels import tpu_masked_attention, tpu_mlp, tpu_rows
from asvit_jax.sparsity.kernels.tpu_attention import HEAD
from asvit_jax.vit.layers import ACTIVATIONS

MOST_TOKENS = 256  # all numerators of a head are in the vector memory at once
MOST_WIDTH = 1024
MOST_WEIGHTS = 384 * 1536  # of a layer of an MLP: their gradients are in the vector memory
LEAST_TOKENS = 16  # of an image, for a kernel to run its MLP

_interpreted = contextvars.ContextVar("interpreted", default=False)


@contextlib.contextmanager
def interpreted():
  """A context in which kernels are traced to be interpreted, on any platform."""
  token = _interpreted.set(True)
  try:
    yield
  finally:
    _interpreted.reset(token)


class KernelSoftmax(Softmax):
  """Softmax attention whose context comes from kernels where all tokens are queries.

  The attention of the class token, and that received, are XLA's: `jit` drops them where no stage
  reads them.
  """

  def dense(self, q, k, v, bias=None, received=False):
    """See `Softmax.dense`."""
    if q.shape[1] < k.shape[1]:
      return super().dense(q, k, v, bias, received)
    of_class = super().dense(q if received else q[:, :1], k, v, bias, received)[1]
    return _context(q, k, v, None, bias), of_class

  def masked(self, q, k, v, keep, bias=None, received=False):
    """See `Softmax.masked`."""
    if q.shape[1] < k.shape[1]:
      return super().masked(q, k, v, keep, bias, received)
    of_class = super().masked(q if received else q[:, :1], k, v, keep, bias, received)[1]
    return _context(q, k, v, keep, bias), of_class


softmax = KernelSoftmax()


def by_kernels(network):
  """A `Network` for `train_mode`, only to make a step of it; `refuses` must not refuse it."""
  arch = dataclasses.replace(network.arch, attention=f"{__name__}:softmax")
  return dataclasses.replace(network, arch=arch)


def train_mode(model):
  """Makes a `VisionTransformer` of `by_kernels` run MLPs by kernels, too, if they cover them."""
  arch = model.arch
  if arch.qkv_bias:
    for block in model.blocks:
      block.attn.projected = _projected
  covered = arch.activation in ACTIVATIONS and not (arch.swiglu or arch.mlp_norm)
  if covered and arch.width * arch.hidden <= MOST_WEIGHTS:
    for block in model.blocks:
      block.fused_mlp = _mlp


def refuses(arch, dtype):
  """Why the kernels do not run the training step of a network; None if they do."""
  tokens, channels = arch.prefix_tokens + arch.patches, arch.width // arch.heads
  reasons = {
    f"its heads have {channels} channels, not {HEAD}": channels != HEAD,
    f"it has {tokens} tokens, over {MOST_TOKENS}": tokens > MOST_TOKENS,
    f"its width is {arch.width}, over {MOST_WIDTH}": arch.width > MOST_WIDTH,
    f"its attention is {arch.attention!r}": arch.attention != "softmax",
    f"it computes in {dtype}": jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16),
  }
  return next((reason for reason, holds in reasons.items() if holds), None)


def _context(q, k, v, keep, bias):
  """The (b, n, h, c) context of (b, n, h, c) queries, keys and values."""
  b, n, heads, _ = q.shape
  # XLA finds the array of which these are parts, and copies none; with an odd number of heads, it
  # copies.
  parts = [a.reshape(b, n, -1) for a in (q, k, v)]
  if heads % 2:
    parts = [jnp.pad(a, ((0, 0), (0, 0), (0, HEAD))) for a in parts]
  qkv = jnp.concatenate(parts, axis=-1)
  context = tpu_masked_attention.attend(qkv, keep, bias, heads, _interpreted.get())
  return context[..., : heads * HEAD].reshape(q.shape)


def _mlp(block, x):
  """The norm and the MLP of a `Block`: (b, n, d) -> (b, n, d)."""
  if x.shape[1] < LEAST_TOKENS:  # the last block, for the tokens that are read
    return block.mlp(block.norm2(x))
  b, n, d = x.shape
  norm = tpu_rows.Norm(block.norm2.scale[...], block.norm2.bias[...])
  up, down = (
    tpu_rows.Linear(linear.kernel[...], linear.bias[...])
    for linear in (block.mlp.fc1, block.mlp.fc2)
  )
  # The order in which XLA stores tokens, as it pads 64 images to nothing, and 197 tokens to 200.
  rows = jnp.swapaxes(x, 0, 1).reshape(n * b, d)
  y = tpu_mlp.norm_mlp(
    *(rows, norm, up, down, block.norm2.epsilon, block.mlp.activation, _interpreted.get())
  )
  return jnp.swapaxes(y.reshape(n, b, d), 0, 1)


def _projected(linear, x):
  """A linear layer with a bias, (..., d) -> (..., to)."""
  y = x.astype(linear.dtype) @ linear.kernel[...].astype(linear.dtype)
  return _plus(y, linear.bias[...])


@jax.custom_vjp
def _plus(y, bias):
  """(b, n, to) + (to,) float32, in the type of the first.

  Its gradient sums by a product: the sum that XLA schedules where a kernel, and no operation of its
  own, makes the gradient of y takes ten times as long (for v5e, by its compiler).
  """
  return y + bias.astype(y.dtype)


def _plus_backward(_, gradient):
  ones = jnp.ones((8, *gradient.shape[:2]), gradient.dtype)  # of one row, XLA makes a sum again
  sums = jnp.einsum(
    "mbn,bnd->md", ones, gradient, precision="highest", preferred_element_type=jnp.float32
  )
  return gradient, sums[0]


_plus.defvjp(lambda y, bias: (_plus(y, bias), None), _plus_backward)
