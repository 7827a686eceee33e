"""The class token's attention, averaged over the heads: the score of EViT and others."""

from asvit_jax.sparsity.scores.class_attention import ClassAttention


class MeanAttention(ClassAttention):
  """See `sparsity.scores`; what is gathered is the score, as the paper's is."""

  def gather(self, class_attention, context):
    """(..., h) -> (...)."""
    del context
    return class_attention.mean(axis=-1)


mean_attention = MeanAttention()
