"""Reductions: what becomes of the tokens that a stage does not keep.

A reduction is an object with

  changes_tokens: whether kept tokens take anything over; a bool.
  uses_keys: whether it compares the keys of tokens; a bool.
  __call__(x, sizes, present, keep, keys): the (b, n, d) tokens and their (b, n) sizes after the
    stage, from those before it. A size says how many patches a token stands for; attention counts
    it so often. `present` and `keep` are (b, n) masks, 1 for the tokens before and after; the class
    token, which is the first, is in both. `keys` are (b, n, c), the mean over the heads (None
    unless `uses_keys`; the tokens themselves, x, where the reduction has `uses_tokens`, a bool that
    it may leave out). Not called where `changes_tokens` is false. Gradients reach `keep`.

The tokens that are not kept are taken out afterwards, by the execution.
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
