"""Token Merging (arXiv:2210.09461): every block merges the r most similar pairs of tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.comparison.methods.fixed import FixedCount, take
from asvit_jax.sparsity import complexity
from asvit_jax.sparsity.executions.fixed_count import predict_from_tokens
from asvit_jax.sparsity.pruning import Pruning
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES, cosine_similarity


class ToMe(FixedCount):
  """Token Merging as published, with the same r in every block; a method, see `methods`.

  Between attention and MLP, tokens are assigned alternately to two sets. Each token of the first,
  except the class token, is linked to the token of the second with the most similar key (mean over
  the heads). The tokens of the r strongest links are merged, weighted by size, and attention adds
  the logarithm of the sizes to its logits (section 3). Counts are the pairs that each block merges:
  r, or all pairs if fewer are left.

  The merge in the last block cannot change the prediction, which reads the class token; it is not
  computed, but the paper's count includes it. A network whose prediction reads patch tokens merges
  nothing there.
  """

  def choices(self, arch):
    """The counts of every r, a list of tuples; the first merges nothing."""
    return [pairs(arch, r) for r in range(1 + arch.patches // 2)]

  def cost(self, arch, counts, real=False):
    """(..., depth) pairs merged -> (...) GMACs, by the paper's count or the real ones."""
    counts = np.asarray(counts)
    in_mlp = arch.prefix_tokens + arch.patches - np.cumsum(counts, axis=-1)
    tokens = in_mlp + counts
    compared = -(-tokens // 2) * (tokens // 2) * (counts > 0)  # in every block
    if real:
      compared = compared[..., :-1]
    similarities = 1e-9 * arch.width / arch.heads * compared.sum(axis=-1)
    return complexity.gmacs_of_blocks(arch, tokens, real, in_mlp) + similarities

  def forward(self, model, images, counts):
    """`Outputs` with logits only, of normalised images (b, s, s, 3), the whole batch at once."""
    arch = model.arch
    x, sizes = model.embed(images), None
    # With merging, the cache includes the keys, averaged over the heads.
    pruning = Pruning.of(arch, SCORES["class_attention"], REDUCTIONS["merge"])
    sizes = pruning.first_sizes(*x.shape[:2])
    for block, r in zip(model.blocks[:-1], counts, strict=False):
      x, cache = block.attended(x, functools.partial(pruning.dense, sizes=sizes))
      x, sizes = merge_pairs(x, sizes, cache.keys, r, arch.prefix_tokens)
      x = block.fed_forward(x)
    return predict_from_tokens(model, x, functools.partial(pruning.dense, sizes=sizes), sizes)


tome = ToMe()


def pairs(arch, r):
  """The pairs that each block merges, a tuple of `depth` ints: r, or half of the patches left."""
  counts, n = [], arch.prefix_tokens + arch.patches
  for _ in range(arch.depth):
    counts.append(min(r, (n - arch.prefix_tokens) // 2))
    n -= counts[-1]
  if arch.reads_patches:
    counts[-1] = 0
  return tuple(counts)


def merge_pairs(x, sizes, keys, r, prefix=1):
  """Bipartite soft matching, and the merge of its r strongest links.

  Args:
    x: (b, n, d) tokens, the class token first.
    sizes: (b, n) number of patches that each token stands for.
    keys: (b, n, c) keys, the mean over the heads.
    r: static number of links to merge, at most (n - prefix) // 2.
    prefix: number of tokens before the patches, the first ones of both sets. None of them is merged
      with any token.

  Returns:
    (b, n - r, d) tokens and (b, n - r) sizes: the tokens before the patches in their places, the
    rest of the first set, in order, and the second set. The order is that of the authors' code
    (facebookresearch/ToMe, `tome/merge.py`).
  """
  if not r:
    return x, sizes
  keys = jax.lax.stop_gradient(keys)
  similarity = cosine_similarity(keys[:, ::2], keys[:, 1::2])  # (b, first, second)
  if prefix > 1:
    similarity = similarity.at[:, :, : prefix // 2].set(-jnp.inf)
  strength = similarity.max(axis=-1)
  if prefix:
    strength = strength.at[:, : (prefix + 1) // 2].set(-jnp.inf)
  order = jnp.argsort(-strength, axis=-1)
  merged, left = order[:, :r], jnp.sort(order[:, r:], axis=-1)
  into = take(similarity.argmax(axis=-1), merged)  # (b, r)

  image = jnp.arange(len(x))[:, None]
  first, second = x[:, ::2], x[:, 1::2].astype(jnp.float32)
  first_sizes, second_sizes = sizes[:, ::2], sizes[:, 1::2]
  moved = take(first_sizes, merged)
  total = second_sizes.at[image, into].add(moved)
  mass = (second_sizes[..., None] * second).at[image, into]
  mass = mass.add(moved[..., None] * take(first, merged).astype(jnp.float32))
  second = (mass / total[..., None]).astype(x.dtype)
  return (
    _joined(take(first, left), second, prefix),
    _joined(take(first_sizes, left), total, prefix),
  )


def _joined(first, second, prefix):
  """Joins the rest of both sets, (b, m, ...) each; the tokens before the patches come first."""
  sets, own = (first, second), (prefix + 1) // 2  # of these, the ones in the first set
  before = [sets[i % 2][:, i // 2 : i // 2 + 1] for i in range(prefix)]
  return jnp.concatenate([*before, first[:, own:], second[:, prefix // 2 :]], axis=1)
