"""Searches the pruning that is predicted to reach a time and changes predictions least.

A candidate is an execution and a schedule, the relative strength of the stages (stage weights). The
target time determines its keep ratio. Of the candidates, the one with the smallest
KL(dense ‖ pruned) is chosen.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.pacing import prediction, running
from asvit_jax.sparsity import schedule
from asvit_jax.sparsity.complexity import dense_gmacs, gmacs
from asvit_jax.sparsity.schedule import mean_counts
from asvit_jax.sparsity.search import divergence

# Schedules are the network's own stage weights, or those that its score has for the budget,
# × e^(s·t), with t from -1 at the first stage to 1 at the last. s moves in steps of TILT, at most
# TILTS of them, while the divergence decreases.
TILT, TILTS = 0.7, 3
_HOPELESS = 1.5  # divergence of packed ÷ that of fixed, above which other schedules do not help
_HALVINGS = 30
_PASSES = 2  # iterations in which stage weights and the budget that they depend on converge
_TOLERANCE, _TRIALS = 0.01, 6  # of the time of packed execution, relative; and attempts to meet it


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A way to prune.

  Attributes:
    execution: a name of `running.PACED`.
    weights: stage weights, see `Architecture.stage_weights`.
    ratio: keep ratio, see `Calibrator`.
    counts: rounded mean number of patches that each stage keeps.
    predicted: predicted ms per batch.
    divergence: KL(dense ‖ pruned) of the predictions, nats, the mean over the images.
  """

  execution: str
  weights: tuple[float, ...]
  ratio: float
  counts: tuple[int, ...]
  predicted: float
  divergence: float


class Solver:
  """Finds candidates for target times.

  Args:
    table: the `Table` of the network.
    calibrator: a `Calibrator` on the images on which divergences are computed.
    seed: seed of the random batches for which packed execution is predicted.
  """

  def __init__(self, table, calibrator, seed=0):
    self.table, self.arch, self.seed = table, calibrator.arch, seed
    self._calibrator, self._dense = calibrator, None
    # Ratio of two times, from the last solution: with equal counts in all images ÷ with their own.
    self._aim = 1.0

  def best(self, target):
    """The `Candidate` for a target time with the least divergence from the dense network.

    Fixed execution, which needs few trials, selects the schedule. Packed execution is tried with
    the same one, and with neighboring ones unless its divergence is far above that of fixed.

    Args:
      target: ms per batch.

    Raises:
      InputError: no candidate is predicted to be that fast.
    """
    arch = self.scheduled(target)
    fixed, s = self._descended(running.FIXED, arch, target, 0, TILTS)
    packed = self.solved(running.PACKED, tilted(arch, s), target)
    if packed is None or fixed is None or packed.divergence < _HOPELESS * fixed.divergence:
      packed, _ = self._descended(running.PACKED, arch, target, s, 1, packed)
    found = [candidate for candidate in (fixed, packed) if candidate is not None]
    if not found:
      raise InputError(
        f"{target:.1f} ms for {self.table.batch} images cannot be reached by any way to prune: "
        "give a lower speed-up"
      )
    return min(found, key=lambda candidate: candidate.divergence)

  def scheduled(self, target):
    """The `Architecture` with the stage weights for the budget that a target time corresponds to.

    Args:
      target: ms per batch in fixed execution.

    Returns:
      An `Architecture`; see `schedule.with_stage_weights`.
    """
    arch = self.arch
    for _ in range(_PASSES):
      exponents = arch.stage_exponents
      ratio = _largest(self._fixed_ms(exponents), target) or 0.0
      share = gmacs(arch, jnp.asarray(_counts(arch, ratio, exponents), jnp.float32))
      arch = schedule.with_stage_weights(self.arch, min(float(share) / dense_gmacs(arch), 1.0))
      if arch.stage_exponents == exponents:
        break
    return arch

  def _descended(self, execution, arch, target, start, most, first=None):
    """The best `Candidate` of an execution, and its tilt, by descent from a first tilt.

    Args:
      execution: a name of `running.PACED`.
      arch: the `Architecture` whose stage weights are tilted.
      target: ms per batch.
      start: the first tilt.
      most: largest number of steps to either side.
      first: the `Candidate` at `start`, if it is known already.
    """
    first = best = first or self.solved(execution, tilted(arch, start), target)
    at = start
    for way in (-1, 1) if arch.stages > 1 else ():
      for steps in range(1, most + 1):
        s = start + way * steps * TILT
        candidate = self.solved(execution, tilted(arch, s), target)
        if candidate is None or (best is not None and candidate.divergence >= best.divergence):
          break
        best, at = candidate, s
      if best is not first:  # this direction improved, so the other one is worse
        break
    return best, at

  def solved(self, execution, weights, target):
    """The `Candidate` of an execution and stage weights for a target time; None if it is too short.

    Args:
      execution: a name of `running.PACED`.
      weights: (stages,) stage weights.
      target: ms per batch.
    """
    exponents = _exponents(self.arch, weights)
    solve = self._fixed if execution == running.FIXED else self._packed
    found = solve(exponents, target)
    if found is None:
      return None
    ratio, predicted, trial = found
    counts = mean_counts(trial.kept)
    if self._dense is None:
      self._dense = self._calibrator.dense_logits()
    kl = divergence(self._dense, trial.logits)
    named = " ".join(f"{w:.2f}" for w in weights)
    log(f"{execution}, stage weights {named}: predicted {predicted:.1f} ms, KL {kl:.5f} nats")
    return Candidate(execution, tuple(weights), ratio, counts, predicted, kl)

  def _fixed(self, exponents, target):
    ms = self._fixed_ms(exponents)
    ratio = _largest(ms, target)
    if ratio is None:
      return None
    counts = _counts(self.arch, ratio, exponents)
    return ratio, ms(ratio), self._calibrator.fixed_trial(counts, logits=True)

  def _fixed_ms(self, exponents):
    """A function of the keep ratio that returns the ms per batch in fixed execution."""
    return lambda ratio: prediction.fixed_ms(
      self.table, self.arch, _counts(self.arch, ratio, exponents)
    )

  def _packed(self, exponents, target):
    """Solves for packed execution, where the time depends on the counts of each image.

    The keep ratio is solved for as if all images kept equal counts. Trials give the real counts,
    and correct the target of that until their predicted time is right.
    """

    def uniform(ratio):
      counts = _counts(self.arch, ratio, exponents)
      return prediction.packed_ms(self.table, self.arch, counts[None])

    # Start from the correction that the previous schedule needed.
    aim, low, high, best = self._aim * target, 0.0, 1.0, None
    if uniform(0.0) > target:
      return None
    ratio = _largest(uniform, aim) or 0.0
    for _ in range(_TRIALS):
      trial = self._calibrator.trial(ratio, exponents, logits=True)
      ms = prediction.packed_ms(self.table, self.arch, trial.kept, self.seed)
      if best is None or abs(ms / target - 1) < abs(best[1] / target - 1):
        best = ratio, ms, trial
        self._aim = aim / target
      if abs(ms / target - 1) < _TOLERANCE or (ratio == 1 and ms <= target):
        break
      low, high = (ratio, high) if ms < target else (low, ratio)
      aim *= target / ms
      following = _largest(uniform, aim)
      inside = following is not None and low < following < high
      ratio = following if inside else (low + high) / 2
    return None if best[1] > (1 + 2 * _TOLERANCE) * target else best


def fastest(table, arch):
  """The largest predicted speed-up of a network, with every patch pruned at the first stage."""
  none = np.zeros((1, arch.stages), int)
  least = (prediction.fixed_ms(table, arch, none[0]), prediction.packed_ms(table, arch, none))
  return table.dense / min(least)


def check_reachable(table, arch, speedups):
  """Raises InputError if the largest of several speed-ups is predicted to be out of reach."""
  asked, most = max(speedups), fastest(table, arch)
  if asked > most:
    raise InputError(
      f"speed-up {asked:g} cannot be reached: with every patch pruned from block "
      f"{arch.prune_before[0]} on, {np.floor(100 * most) / 100:g} is predicted at most; give a "
      "lower one, or prune earlier"
    )


def tilted(arch, s):
  """The network's stage weights, tilted to prune more in later stages; in earlier ones if s < 0."""
  own = arch.stage_weights or (1.0,) * arch.stages
  if s == 0:
    return own
  weights = np.array(own) * np.exp(s * np.linspace(-1, 1, arch.stages))
  return tuple(float(f"{w:.4g}") for w in weights)


def _exponents(arch, weights):
  return dataclasses.replace(arch, stage_weights=weights).stage_exponents


def _counts(arch, ratio, exponents):
  """(stages,) int patches that each stage keeps of every image at a keep ratio."""
  counts = np.round(arch.patches * ratio ** np.array(exponents)).astype(int)
  return np.maximum(counts, arch.least_patches)


def _largest(ms, target):
  """The largest keep ratio whose time is at most the target; None if there is none."""
  if ms(0.0) > target:
    return None
  if ms(1.0) <= target:
    return 1.0
  low, high = 0.0, 1.0
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    low, high = (middle, high) if ms(middle) <= target else (low, middle)
  return low
