"""Reductions: what becomes of the tokens that a stage does not keep.

A reduction is an object with

  changes_tokens: whether kept tokens take anything over; a bool.
  __call__(x, present, keep): the (b, n, d) tokens after the stage, from the tokens before it;
    `present` and `keep` are (b, n) masks, 1 for the tokens before and after; the class token, which
    is the first, is in both. Not called where `changes_tokens` is false. Gradients reach `keep`.

The tokens that are not kept are taken out afterwards, by the execution.
"""

from asvit_jax.core.parts import Table

REDUCTIONS = Table(
  "reduction",
  "model.reduction",
  {
    "drop": "asvit_jax.sparsity.reductions.drop:drop",
  },
)
