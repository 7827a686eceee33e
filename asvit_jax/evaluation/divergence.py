"""Divergence of predictions from the dense network's, with its statistical errors.

Top-1 counts only the few images whose prediction changes. A divergence uses every image and needs
no labels, and so resolves smaller differences.
"""

import numpy as np

_RESAMPLES = 10_000
_MEMORY = 1 << 24  # largest number of draws held at once


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
  """Standard error of the mean of (n,) values, as a float; None for a single value."""
  return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def paired_interval(ours, others, level=0.95, seed=0):
  """A bootstrap interval for the mean difference of two methods on the same images.

  Images are resampled with replacement, for both methods together, so that the difficulty of an
  image cancels (percentile bootstrap, Efron and Tibshirani 1993, chapter 13).

  Args:
    ours: (images,) values of one method.
    others: (images,) values of the other method, for the same images in the same order.
    level: confidence level, in (0, 1).
    seed: seed of the resampling.

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
