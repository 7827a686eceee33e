"""Reductions: what becomes of the tokens that a stage does not keep.

A reduction is an object with

  changes_tokens: whether kept tokens take anything over; a bool.
  uses_keys: whether it compares the keys of tokens; a bool.
  __call__(x, sizes, present, keep, keys): the (b, n, d) tokens and their (b, n) sizes after the
    stage, from those before it. A size says how many patches a token stands for; attention counts
    it so often. `present` and `keep` are (b, n) masks, 1 for the tokens before and after; the class
    token, which is the first, is in both. `keys` are (b, n, c), the mean over the heads (None
    unless `uses_keys`). Not called where `changes_tokens` is false. Gradients reach `keep`.

The tokens that are not kept are taken out afterwards, by the execution.

A reduction may also have

  uses_similarity: whether it compares the tokens themselves: it is then handed their (b, n, n)
    float32 cosines in place of `keys`; see `scores`.
  destinations(keep, keys): (b, n) int, the kept token that each of the others becomes part of, n
    where none takes it; for a reduction that does no more than to average tokens, weighted by size.
    Packed and fixed execution then merge and take out in one product.
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
