"""Attentions: how tokens see each other, in every arrangement that an execution needs.

An attention is an object with three methods. Each takes (b, n, h, c) queries, keys and values,
token 0 being the class token, and returns the (b, n, h, c) context that every token receives and
the (b, n, h) float32 attention of the class token to every token. Softmax is float32 in any compute
type. There may be fewer queries than keys: those of the first tokens, which then alone receive
something.

  dense(q, k, v, bias=None): every token sees every token.
  masked(q, k, v, keep, bias=None): kept tokens see kept tokens; `keep` is (b, n) float32, 1 for
    kept tokens and the class token, and gradients reach it. What pruned tokens receive is finite
    and not read.
  prefix(q, k, v, count, bias=None): the first `count` (b,) tokens of every image see each other;
    what comes after them is undefined.

`bias`, (b, n) float32, is added to the logits of every key: where tokens were merged, the logarithm
of how many patches one stands for.
"""

from asvit_jax.core.parts import Table

ATTENTIONS = Table(
  "attention",
  "model.attention",
  {
    "softmax": "asvit_jax.sparsity.attentions.softmax:softmax",
  },
)
