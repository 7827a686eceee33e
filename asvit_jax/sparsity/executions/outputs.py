"""`Outputs`, the result of every execution."""

import dataclasses

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
  """The result of a forward pass; `jit` computes only the fields that are read.

  Attributes:
    logits: (b, classes) float32, the prediction.
    class_logits: (b, classes) float32 of the class token alone, which differ from `logits` if there
      is an auxiliary head; None for packed and fixed.
    aux_logits: (b, n, classes) float32 of the patch tokens; None without an auxiliary head, and for
      packed and fixed.
    tokens: (b, prefix + n, d) float32 tokens after the last block and the final norm, the class
      token first; rows of pruned tokens are meaningless. Packed and fixed return them only on
      request, the kept ones first.
    positions: (b, prefix + n) int32, the token in each row of `tokens`: 0 the class token, from
      `Architecture.prefix_tokens` on the patches, row by row; -1 for a meaningless row. None if
      `tokens` is None.
    keep: (b, stages, n) float32, 1 for the patch tokens that each stage keeps.
    scores: (b, stages, n) float32 scores of the patch tokens; None for packed.
    kept: (b, stages) float32 number of kept patch tokens, differentiable like `keep`.
  """

  logits: jax.Array
  class_logits: jax.Array | None = None
  aux_logits: jax.Array | None = None
  tokens: jax.Array | None = None
  positions: jax.Array | None = None
  keep: jax.Array | None = None
  scores: jax.Array | None = None
  kept: jax.Array | None = None
