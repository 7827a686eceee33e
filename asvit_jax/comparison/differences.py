"""Which methods a comparison's images tell apart, and which they do not."""

from asvit_jax.evaluation.divergence import paired_interval


def above(row, best):
  """`kl_above_best`: how much farther a row is from the dense network than the best of its budget.

  Args:
    row: measurement of `accuracy.measure`, with `each`.
    best: that with the least mean divergence, of the same images in the same order.

  Returns:
    A list of three: the mean difference of the divergences, nats, and the ends of its 95 %
    interval; 0 lies in the interval where these images do not tell the two apart.
  """
  if row is best:
    return [row["kl"] - row["kl"]] * 3  # 0, or NaN where it is not finite
  return list(paired_interval(row["each"]["kl"], best["each"]["kl"]))
