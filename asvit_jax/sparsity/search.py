"""Searches for how strongly each stage should prune, without labels or gradients."""

import dataclasses

import numpy as np
from scipy.special import log_softmax

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.core.progress import Progress, log
from asvit_jax.sparsity.complexity import check_budget, target_gmacs, uniform_ratio
from asvit_jax.sparsity.schedule import mean_counts, with_stage_weights

TRIALS = 40
# Of the logarithms of the weights, and how it adapts (Rechenberg's rule: one in five improves).
_STEP, _AFTER_SUCCESS, _AFTER_FAILURE = 0.4, 1.5, 1.5**-0.25
_TOLERANCE = 1e-3  # of the budget; KL differs by some five times that
_CORRECTIONS = 3


@dataclasses.dataclass(frozen=True)
class Found:
  """The result of a search.

  Attributes:
    stage_weights: the best weights, see `Architecture.stage_weights`.
    divergence: KL(dense ‖ pruned) of the predictions, mean over the images, nats.
    divergence_before: the same with the initial weights.
    trials: number of candidates.
    seed: seed of the search.
    images: number of images.
    gmacs: mean GMACs per image with the best weights.
    counts: mean number of patches that each stage keeps with the best weights, rounded.
  """

  stage_weights: tuple[float, ...]
  divergence: float
  divergence_before: float
  trials: int
  seed: int
  images: int
  gmacs: float
  counts: tuple[int, ...]


def search(calibrator, budget, trials=TRIALS, seed=0):
  """Searches for the stage weights with predictions closest to the dense network's at a budget.

  A (1+1) evolution strategy: the logarithms of the weights move at random, by steps that grow after
  a success and shrink after a failure. Every candidate gets thresholds that meet the budget.

  Args:
    calibrator: a `Calibrator`.
    budget: share of the dense GMACs.
    trials: number of candidates.
    seed: seed of the random steps; the same seed, images and machine give the same result.

  Returns:
    `Found`.

  Raises:
    InputError: a budget that cannot be met.
  """
  check_budget(calibrator.arch, budget)
  arch = with_stage_weights(calibrator.arch, budget)
  rng = np.random.default_rng(seed)
  evaluate = _Evaluation(calibrator, target_gmacs(arch, budget))
  best = np.log(np.array(arch.stage_weights or (1.0,) * arch.stages))
  before, best_trial = evaluate(np.exp(best))
  least = before
  step = _STEP
  progress = Progress("searching, candidates", trials)
  for done in range(1, trials + 1):
    candidate = best + step * rng.standard_normal(arch.stages)
    candidate -= candidate.mean()  # a common factor is undone by the ratio
    found, trial = evaluate(np.exp(candidate))
    if found < least:
      best, least, best_trial, step = candidate, found, trial, step * _AFTER_SUCCESS
      log(f"candidate {done}: KL {least:.5f} (began at {before:.5f}), weights {_text(best)}")
    else:
      step *= _AFTER_FAILURE
    progress.update(done)
  weights = tuple(float(f"{w:.4g}") for w in np.exp(best))
  counts = mean_counts(best_trial.kept)
  images = len(evaluate.dense)
  return Found(weights, least, before, trials, seed, images, best_trial.gmacs, counts)


def check_arguments(trials, seed):
  """Raises InputError unless the number of trials and the seed are integers from 0 on."""
  for name, value in (("trials", trials), ("seed", seed)):
    if not sizes.is_whole(value) or value < 0:
      raise InputError(f"{name} {shown(value)} of the search: expected a whole number, 0 or more")


class _Evaluation:
  """Function of stage weights: their KL divergence at the target GMACs, and the `Trial`."""

  def __init__(self, calibrator, target):
    self._calibrator, self._target = calibrator, target
    self._aim = target  # uniform GMACs whose measured ones are the target
    self.dense = calibrator.dense_logits()

  def __call__(self, weights):
    arch = dataclasses.replace(self._calibrator.arch, stage_weights=tuple(weights))
    for _ in range(_CORRECTIONS):
      ratio = uniform_ratio(arch, self._aim)
      trial = self._calibrator.trial(ratio, arch.stage_exponents, logits=True)
      if abs(trial.gmacs / self._target - 1) < _TOLERANCE:
        break
      self._aim += self._target - trial.gmacs
    return divergence(self.dense, trial.logits), trial


def divergence(dense, pruned):
  """KL(dense ‖ pruned) of predictions, nats, mean over the images.

  Args:
    dense: (images, classes) logits of the dense network.
    pruned: (images, classes) logits of the pruned network.
  """
  dense, pruned = (log_softmax(x.astype(np.float64), axis=-1) for x in (dense, pruned))
  return float((np.exp(dense) * (dense - pruned)).sum(axis=-1).mean())


def _text(logarithms):
  return " ".join(f"{w:.2f}" for w in np.exp(logarithms))
