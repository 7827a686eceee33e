"""Which methods a comparison's images tell apart, and which they do not."""

from asvit_jax.evaluation.divergence import paired_interval


def against_the_best(rows):
  """Adds to the rows of one budget how much farther each is from the dense network than the best.

  Args:
    rows: measurements of `accuracy.measure`, of the same images in the same order, with `each`.

  Returns:
    The rows without `each`, and with `kl_above_best`, a list of three: the mean difference of the
    divergences to those of the method with the least mean, nats, and the ends of its 95 % interval;
    0 lies in the interval where these images do not tell the two apart.
  """
  best = min(rows, key=lambda row: row["kl"])
  return [
    {name: value for name, value in row.items() if name != "each"}
    | {"kl_above_best": list(paired_interval(row["each"]["kl"], best["each"]["kl"]))}
    for row in rows
  ]
