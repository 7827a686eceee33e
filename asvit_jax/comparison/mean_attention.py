"""The class token's attention, averaged over the heads: the score of EViT and others."""

from asvit_jax.sparsity.scores import ClassAttention


class MeanAttention(ClassAttention):
  """The score is the gathered attention, as in the paper's score; see `sparsity.scores`."""

  def gather(self, class_attention, context):
    """(..., h) -> (...)."""
    del context
    return class_attention.mean(axis=-1)


mean_attention = MeanAttention()
