"""Softmax attention for training steps on a TPU, by the kernels of `tpu_masked_attention`.

It is another way to compute `attentions.softmax`, not another attention: a run chooses it by
`config.model.kernels`, and neither weights nor checkpoints know of it.
"""

import dataclasses

import jax.numpy as jnp

from asvit_jax.sparsity.attentions import Softmax
from asvit_jax.sparsity.kernels import tpu_masked_attention
from asvit_jax.sparsity.kernels.tpu_attention import HEAD

MOST_TOKENS = 256  # all numerators of a head are in the vector memory at once
MOST_WIDTH = 1024


class KernelSoftmax(Softmax):
  """Softmax attention whose context comes from kernels where all tokens are queries.

  The attention of the class token, and that received, are XLA's: `jit` drops them where no stage
  reads them.

  Args:
    interpret: whether to interpret the kernels, on any platform.
  """

  def __init__(self, interpret=False):
    self._interpret = interpret

  def dense(self, q, k, v, bias=None, received=False):
    """See `Softmax.dense`."""
    if q.shape[1] < k.shape[1]:
      return super().dense(q, k, v, bias, received)
    of_class = super().dense(q if received else q[:, :1], k, v, bias, received)[1]
    return self._context(q, k, v, None, bias), of_class

  def masked(self, q, k, v, keep, bias=None, received=False):
    """See `Softmax.masked`."""
    if q.shape[1] < k.shape[1]:
      return super().masked(q, k, v, keep, bias, received)
    of_class = super().masked(q if received else q[:, :1], k, v, keep, bias, received)[1]
    return self._context(q, k, v, keep, bias), of_class

  def _context(self, q, k, v, keep, bias):
    """The (b, n, h, c) context of (b, n, h, c) queries, keys and values."""
    b, n, heads, _ = q.shape
    # XLA finds the array of which these are parts, and copies none; with an odd number of heads, it
    # copies.
    parts = [a.reshape(b, n, -1) for a in (q, k, v)]
    if heads % 2:
      parts = [jnp.pad(a, ((0, 0), (0, 0), (0, HEAD))) for a in parts]
    qkv = jnp.concatenate(parts, axis=-1)
    context = tpu_masked_attention.attend(qkv, keep, bias, heads, self._interpret)
    return context[..., : heads * HEAD].reshape(q.shape)


softmax = KernelSoftmax()
interpreted = KernelSoftmax(interpret=True)


def by_kernels(network, interpret=False):
  """A `Network` whose training steps run attention by kernels; only to make a step of it.

  Args:
    network: a `Network` that `refuses` does not refuse.
    interpret: whether to interpret the kernels, on any platform.
  """
  name = f"{__name__}:{'interpreted' if interpret else 'softmax'}"
  return dataclasses.replace(network, arch=dataclasses.replace(network.arch, attention=name))


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
