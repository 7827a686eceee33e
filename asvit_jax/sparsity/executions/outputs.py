"""What every execution returns."""

import dataclasses

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
  """What a forward pass returns; `jit` computes only what is read.

  Attributes:
    logits: (b, classes) float32, the prediction.
    class_logits: (b, classes) float32 of the class token alone; None where packed or fixed. They
      differ from `logits` where there is an auxiliary head.
    aux_logits: (b, n, classes) float32 of the patch tokens; None without auxiliary head, packed or
      fixed.
    tokens: (b, prefix + n, d) float32 tokens after the last block and the final norm, the class
      token first; what is pruned is never attended to, and its row means nothing. Packed and fixed
      return them where it is asked to, those kept before the others.
    positions: (b, prefix + n) int32, which token each row of `tokens` is: 0 the class token, from
      `Architecture.prefix_tokens` on the patches, row by row; -1 where the row means nothing. None
      where `tokens` is.
    keep: (b, stages, n) float32, 1 for the patch tokens that each stage keeps.
    scores: (b, stages, n) float32 scores that decided it; None where packed.
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
