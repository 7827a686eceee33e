"""Attentions: how tokens attend to each other, for every token layout of the executions.

An attention is an object with three methods. Each takes (b, n, h, c) queries, keys and values,
token 0 being the class token, and returns the (b, n, h, c) context of every token and the (b, n, h)
float32 attention of the class token to every token. Softmax is float32 for any compute type. There
may be fewer queries than keys: then they belong to the first tokens, and only these get a context.

  dense(q, k, v, bias=None): every token attends to every token.
  masked(q, k, v, keep, bias=None): kept tokens attend to kept tokens; `keep` is (b, n) float32, 1
    for kept tokens and the class token, and gradients reach it. The context of pruned tokens must
    be finite, and is ignored.
  prefix(q, k, v, count, bias=None): the first `count` (b,) tokens of every image attend to each
    other; the context of the remaining tokens is undefined.

`bias`, (b, n) float32, is added to the logits of every key: for merged tokens, the logarithm of the
number of patches that a token stands for.
"""

from asvit_jax.core.parts import Table

ATTENTIONS = Table(
  "attention",
  "model.attention",
  {
    "softmax": "asvit_jax.sparsity.attentions.softmax:softmax",
  },
)
