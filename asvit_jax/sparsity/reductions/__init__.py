"""Reductions: how a stage transfers information from the removed tokens to the kept ones.

A reduction is an object with

  changes_tokens: bool, whether the kept tokens change.
  uses_keys: bool, whether it compares the keys of tokens.
  __call__(x, sizes, present, keep, keys): returns the (b, n, d) tokens and their (b, n) sizes after
    the stage, from those before it. The size of a token is the number of patches that it stands
    for, and its weight in attention. `present` and `keep` are (b, n) masks of the tokens before and
    after the stage; the class token, which is the first, is in both. `keys` are (b, n, c), the mean
    over the heads (None unless `uses_keys`). It is not called if `changes_tokens` is false.
    Gradients reach `keep`.

The execution removes the tokens afterwards.

A reduction may also have

  uses_similarity: bool, whether it compares the tokens themselves: it then receives their (b, n, n)
    float32 cosine similarities in place of `keys`; see `scores`.
  destinations(keep, keys): (b, n) int, the kept token into which each removed token is merged, n
    for none; for reductions that only average tokens, weighted by size. Packed and fixed execution
    then merge and remove tokens in one product.
"""

from asvit_jax.core.parts import Table

REDUCTIONS = Table(
  "reduction",
  "model.reduction",
  {
    "drop": "asvit_jax.sparsity.reductions.drop:drop",
    "merge": "asvit_jax.sparsity.reductions.merge:merge",
    "merge_tokens": "asvit_jax.sparsity.reductions.merge:merge_tokens",
  },
)
