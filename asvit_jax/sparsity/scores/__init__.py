"""Scores: how much a token matters. A stage keeps the tokens whose score exceeds its threshold.

A score is a function of keyword arguments, of which it takes what it needs and `**_` the rest; `n`
counts the class token, which is the first, and `jit` drops what nobody reads:

  class_attention: (b, n, h) float32 attention of the class token to every token, by head.
  context: (b, n, h, c) output of each head at every token.
  keys: (b, n, h, c).
  present: (b, n) bool, the tokens that are there; those of the others mean nothing.

It returns (b, n) float32; what it says of the class token is not read.
"""

from asvit_jax.core.parts import Table

SCORES = Table(
  "score",
  "model.score",
  {
    "class_attention": "asvit_jax.sparsity.scores.class_attention:class_attention",
  },
)
