"""How far predictions are from the dense network's, and what a sample of images can tell of it.

Top-1 counts the few images whose answer changes; a divergence uses every image, needs no labels,
and so tells differences apart that top-1 cannot.
"""

import numpy as np

_RESAMPLES = 10_000
_MEMORY = 1 << 24  # draws at a time


def summarize(kl, agrees):
  """Means over images and their standard errors.

  Args:
    kl: (images,) KL(dense ‖ pruned) of the predictions, `losses.terms.divergence`, nats.
    agrees: (images,) bool, whether both networks give the same class.

  Returns:
    Dictionary of `kl`, nats, `kl_error`, `agreement`, percent, and `agreement_error`.
  """
  kl, agrees = np.asarray(kl, np.float64), 100 * np.asarray(agrees, np.float64)
  return {
    "kl": float(kl.mean()),
    "kl_error": standard_error(kl),
    "agreement": float(agrees.mean()),
    "agreement_error": standard_error(agrees),
  }


def standard_error(values):
  """The standard error of the mean of (n,) values, a float; of one value None."""
  return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def paired_interval(ours, others, level=0.95, seed=0):
  """A bootstrap interval of the mean difference of two methods on the same images.

  The images are drawn anew with replacement, both methods together: what makes an image hard for
  all of them then cancels (percentile bootstrap, Efron and Tibshirani 1993, chapter 13).

  Args:
    ours: (images,) values of one method.
    others: (images,) of the other, of the same images in the same order.
    level: of the interval, in (0, 1).
    seed: of the draws.

  Returns:
    (mean of ours - others, lower end, upper end), floats.
  """
  differences = np.asarray(ours, np.float64) - np.asarray(others, np.float64)
  rng, n = np.random.default_rng(seed), len(differences)
  rows = max(1, _MEMORY // n)
  means = [
    differences[rng.integers(0, n, (min(rows, _RESAMPLES - done), n))].mean(axis=1)
    for done in range(0, _RESAMPLES, rows)
  ]
  tail = 50 * (1 - level)
  low, high = np.percentile(np.concatenate(means), (tail, 100 - tail))
  return float(differences.mean()), float(low), float(high)
