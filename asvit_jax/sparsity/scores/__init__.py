"""Scores: how much a token matters. A stage keeps the tokens whose score exceeds its threshold.

A score is an object with

  uses_keys: whether it compares the keys of tokens; a bool.
  gather(class_attention, context): what it needs of a block, (b, n) or (b, n, …), from the float32
    (b, n, h) attention of the class token to every token and the (b, n, h, c) output of each head
    at it. Computed in every block.
  __call__(gathered, keys, present, exponents): (b, n) float32, at a stage. `keys` are (b, n, c),
    the mean over the heads (None unless `uses_keys`), `present` is a (b, n) bool mask of the tokens
    that are there, what is said of others means nothing; `exponents` are the architecture's.

A score may also have

  uses_similarity: whether it compares the tokens themselves, the residual stream at the stage: it
    is then handed their (b, n, n) float32 cosines in place of `keys`, computed once for it and the
    reduction.
  uses_sizes: whether it is handed `sizes`, (b, n) patches that each token stands for, by that name;
    None where nothing is merged.
  stage_weights(budget, stages): `Architecture.stage_weights` that suit it at a share of the dense
    GMACs, where the architecture says none.

n counts the class token, which is the first; what a score says of it is not read.
"""

from asvit_jax.core.parts import Table

SCORES = Table(
  "score",
  "model.score",
  {
    "class_attention": "asvit_jax.sparsity.scores.class_attention:class_attention",
    "attention_novelty": "asvit_jax.sparsity.scores.attention_novelty:attention_novelty",
    "merge_cost": "asvit_jax.sparsity.scores.merge_cost:merge_cost",
  },
)
