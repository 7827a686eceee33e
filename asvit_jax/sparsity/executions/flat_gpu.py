"""Flat execution's backend for NVIDIA GPUs: products by XLA, ragged attention by a Triton kernel.

Projections and MLPs are products of all rows, which XLA gives to cuBLAS; their number of rows is
one of a few that the program has branches for, see `flat_backends`. Attention reads each image's
first row and number of tokens, and computes just these, at any number of rows.
"""

import jax
import jax.numpy as jnp

from asvit_jax.sparsity.attentions import ATTENTIONS, softmax
from asvit_jax.sparsity.executions import flat_rows

_OLDEST = 8  # major compute capability; XLA refuses to compile Triton for earlier ones


class Triton(flat_rows.Reference):
  """The backend; see `flat_backends`.

  Args:
    lengths: the numbers of rows that it runs at, see `flat_backends`.
    interpret: whether to run the kernel without a GPU, slowly.
  """

  name = "Triton"
  dynamic = False

  def __init__(self, lengths="rungs", interpret=False):
    self.lengths, self.interpret = lengths, interpret

  @property
  def interpreted(self):
    """A copy that runs on any platform, slowly."""
    return Triton(self.lengths, interpret=True)

  def refuses(self, arch, dtype):
    """Refuses other attentions than softmax, heads too wide for registers, and old GPUs."""
    del dtype
    from asvit_jax.sparsity.kernels.gpu_attention import WIDEST

    if ATTENTIONS[arch.attention] is not softmax:
      return f"it computes softmax attention, and the network's is {arch.attention}"
    channels = arch.width // arch.heads
    if channels > WIDEST:
      return f"heads have at most {WIDEST} channels in it, and the network's have {channels}"
    major = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")[0]
    if major.isdigit() and int(major) < _OLDEST:
      return f"XLA's Triton needs compute capability {_OLDEST}.0, an A100's, or a later one"
    return None

  def attended(self, block, x, layout, pruning, scored):
    """See `flat_rows.Reference`."""
    del scored
    from asvit_jax.sparsity.kernels.gpu_attention import ragged_attention

    rotation = pruning.rotation(layout.position, layout.places)
    bias = pruning.prefix_bias(layout.count, layout.sizes)

    def rotated(a):
      if rotation is None:
        return a
      return pruning.rope.rotate(a, *(self.rows(table, layout, len(x)) for table in rotation))

    def attend(q, k, v):
      # The projection's result again, of which a kernel reads any part; XLA sees that.
      qkv = jnp.concatenate([a.reshape(len(x), -1) for a in (rotated(q), rotated(k), v)], axis=1)
      context = ragged_attention(
        qkv,
        layout.start,
        layout.count,
        bias,
        heads=q.shape[1],
        most=layout.width,
        interpret=self.interpret,
      ).reshape(q.shape)
      # Only the last block before a stage has its cache computed.
      windows = (self.windows(a, layout) for a in (q, k, v, context))
      cache = pruning.prefix_cache(*windows, layout.count, layout.sizes, rotation)
      return context, cache

    return block.attended(x, attend)
