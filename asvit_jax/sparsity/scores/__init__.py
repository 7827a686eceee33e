"""Scores: how much a token matters. A stage keeps the tokens whose score exceeds its threshold.

A score is an object with

  uses_keys: bool, whether it compares the keys of tokens.
  gather(class_attention, context): selects the values that it needs from a block, (b, n) or
    (b, n, …), given the float32 (b, n, h) attention of the class token to every token and the
    (b, n, h, c) output of each head at every token. It runs in every block.
  __call__(gathered, keys, present, exponents): returns the (b, n) float32 scores at a stage. `keys`
    are (b, n, c), the mean over the heads (None unless `uses_keys`). `present` is the (b, n) bool
    mask of the tokens left; scores of other tokens are ignored. `exponents` are the architecture's.

A score may also have

  uses_similarity: bool, whether it compares the tokens themselves, the residual stream at the
    stage: it then receives their (b, n, n) float32 cosine similarities in place of `keys`, computed
    once for the score and the reduction.
  uses_sizes: bool, whether it takes the keyword `sizes`, (b, n) number of patches that each token
    stands for; None if nothing is merged.
  stage_weights(budget, stages): default `Architecture.stage_weights` for a share of the dense
    GMACs, used if the architecture sets none.

n includes the class token, which is the first; its score is ignored.
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
