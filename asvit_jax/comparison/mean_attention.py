"""The class token's attention, averaged over the heads: the score of EViT and others."""


class MeanAttention:
  """See `sparsity.scores`."""

  uses_keys = False

  def gather(self, class_attention, context):
    """(..., h) -> (...)."""
    del context
    return class_attention.mean(axis=-1)

  def __call__(self, gathered, keys, present, exponents):
    """What was gathered."""
    del keys, present, exponents
    return gathered


mean_attention = MeanAttention()
