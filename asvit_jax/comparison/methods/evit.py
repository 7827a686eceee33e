"""EViT (arXiv:2202.07800): keeps the most attended tokens and fuses the others into one."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.comparison.methods.fixed import FixedCount, check_no_rope, mean_attention, take
from asvit_jax.sparsity import complexity
from asvit_jax.sparsity.executions.fixed_count import predict_from_tokens
from asvit_jax.sparsity.pruning import Pruning
from asvit_jax.sparsity.reductions import REDUCTIONS


class EViT(FixedCount):
  """EViT as published, with one keep rate κ; a method, see `methods`.

  In the 4th, 7th and 10th block, between attention and MLP, of the n tokens besides the class token
  the ⌈κn⌉ stay to which the class token attends most (mean over the heads). The others are replaced
  by their sum, weighted by that attention (section 3.2). This fused token counts among the n tokens
  of later blocks.

  These are the blocks whose class attention the stages of the paper (arXiv:2209.13802) read. Counts
  are the tokens that stay in each of them.
  """

  def counts(self, arch, ratio):
    """Tokens that stay in each of the blocks at the keep rate `ratio`, without the fused one."""
    check_no_rope(arch, "evit")
    counts, n = [], arch.patches
    for _ in arch.prune_before:
      counts.append(math.ceil(ratio * n - 1e-9))
      n = min(n, counts[-1] + 1)
    return tuple(counts)

  def cost(self, arch, counts, real=False):
    """(..., blocks) tokens that stay -> (...) GMACs, by the paper's count or the real ones."""
    tokens, in_mlp = tokens_in_blocks(arch, np.asarray(counts))
    return complexity.gmacs_of_blocks(arch, tokens, real, in_mlp)

  def forward(self, model, images, counts):
    """`Outputs` with logits only, of normalised images (b, s, s, 3), the whole batch at once."""
    x = model.embed(images)
    pruning = Pruning.of(model.arch, mean_attention, REDUCTIONS["drop"])
    count_of = dict(zip(_blocks(model.arch), counts, strict=True))
    for i, block in enumerate(model.blocks[:-1]):
      x, cache = block.attended(x, pruning.dense)
      prefix = model.arch.prefix_tokens
      x = fuse(x, cache.score, count_of.get(i, x.shape[1] - prefix), prefix)
      x = block.fed_forward(x)
    return predict_from_tokens(model, x, pruning.dense)


evit = EViT()


def fuse(x, attention, count, prefix=1):
  """Keeps the most attended tokens, and fuses the others into one.

  Args:
    x: (b, prefix + n, d) tokens, the class token first.
    attention: (b, prefix + n) attention of the class token to every token.
    count: static number of patch tokens that stay.
    prefix: number of tokens before the patches.

  Returns:
    (b, prefix + count + 1, d) tokens: those before the patches, those that stay, the most attended
    first, and the fused one; x itself if all of them stay.
  """
  if count >= x.shape[1] - prefix:
    return x
  patches, attention = x[:, prefix:], attention[:, prefix:]
  _, order = jax.lax.top_k(attention, attention.shape[1])
  stay, go = order[:, :count], order[:, count:]
  fused = (take(attention, go)[..., None] * take(patches, go)).sum(axis=1, keepdims=True)
  return jnp.concatenate([x[:, :prefix], take(patches, stay), fused.astype(x.dtype)], axis=1)


def tokens_in_blocks(arch, counts):
  """The tokens in every block's attention and in its MLP.

  Args:
    arch: an `Architecture`.
    counts: (..., stages) int array of the tokens that stay.

  Returns:
    Two (..., depth) int arrays, which count the tokens before the patches.
  """
  n = np.full(counts.shape[:-1], arch.patches)
  tokens, in_mlp, stage_of = [], [], {block: i for i, block in enumerate(_blocks(arch))}
  for i in range(arch.depth):
    tokens.append(arch.prefix_tokens + n)
    if i in stage_of:
      n = np.minimum(n, counts[..., stage_of[i]] + 1)
    in_mlp.append(arch.prefix_tokens + n)
  return np.stack(tokens, axis=-1), np.stack(in_mlp, axis=-1)


def _blocks(arch):
  return [before - 1 for before in arch.prune_before]
