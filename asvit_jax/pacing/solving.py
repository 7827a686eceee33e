"""The pruning that is predicted to be as fast as asked, and changes predictions least.

The ways to prune are executions and schedules: how hard stages cut beside each other. The share
that is kept follows from the time; of what is left to choose, KL(dense ‖ pruned) decides.
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

# Schedules are the network's own weights, or those that its score has for the budget, × e^(s·t),
# t from -1 at the first stage to 1 at the last: s moves by so much while predictions get better, so
# often at most.
TILT, TILTS = 0.7, 3
_HOPELESS = 1.5  # packed of so much the divergence of fixed: schedules beside it do not make up for
_HALVINGS = 30
_PASSES = 2  # until stage weights and the budget that they are of fit each other
_TOLERANCE, _TRIALS = 0.01, 6  # of the time of packed


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A way to prune.

  Attributes:
    execution: of `running.PACED`.
    weights: see `Architecture.stage_weights`.
    ratio: keep ratio, see `Calibrator`.
    counts: patches that each stage keeps, on average where images differ.
    predicted: ms of a batch.
    divergence: KL(dense ‖ pruned), nats, the mean over the images.
  """

  execution: str
  weights: tuple[float, ...]
  ratio: float
  counts: tuple[int, ...]
  predicted: float
  divergence: float


class Solver:
  """Solves for times.

  Args:
    table: the `Table` of the network.
    calibrator: a `Calibrator` on the images that decide.
    seed: of the batches that packed is predicted for.
  """

  def __init__(self, table, calibrator, seed=0):
    self.table, self.arch, self.seed = table, calibrator.arch, seed
    self._calibrator, self._dense = calibrator, None
    self._aim = 1.0  # time of equal counts ÷ that of what images keep instead, as far as is known

  def best(self, target):
    """The `Candidate` of a time, ms a batch, whose predictions are nearest to the dense network's.

    Fixed execution, whose trials are few, says which schedule; packed is tried with that one, and
    with those beside it where it comes near.

    Raises:
      InputError: none is predicted to be as fast.
    """
    arch = self.scheduled(target)
    fixed, s = self._descended(running.FIXED, arch, target, 0, TILTS)
    packed = self.solved(running.PACKED, tilted(arch, s), target)
    if packed is None or fixed is None or packed.divergence < _HOPELESS * fixed.divergence:
      packed, _ = self._descended(running.PACKED, arch, target, s, 1, packed)
    found = [candidate for candidate in (fixed, packed) if candidate is not None]
    if not found:
      raise InputError(
        f"{target:.1f} ms for {self.table.batch} images cannot be reached by any way to prune: ask "
        "for a lower speed-up"
      )
    return min(found, key=lambda candidate: candidate.divergence)

  def scheduled(self, target):
    """The `Architecture` with the stage weights of the budget that a time leads to, see `schedule`.

    Args:
      target: ms a batch, which is met with equal counts.
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
    """The best `Candidate` of an execution, and its tilt.

    Args:
      execution: of `running.PACED`.
      arch: the `Architecture` whose weights are tilted.
      target: ms a batch.
      start: the first tilt.
      most: steps from there, at most, to either side.
      first: the `Candidate` there, where it is known already.
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
      if best is not first:  # the other way is worse
        break
    return best, at

  def solved(self, execution, weights, target):
    """The `Candidate` of an execution and of stage weights for a time; None where none is so fast.

    Args:
      execution: of `running.PACED`.
      weights: (stages,) numbers.
      target: ms a batch.
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
    log(f"{execution}, stage weights {named}: {predicted:.1f} ms, KL {kl:.5f}")
    return Candidate(execution, tuple(weights), ratio, counts, predicted, kl)

  def _fixed(self, exponents, target):
    ms = self._fixed_ms(exponents)
    ratio = _largest(ms, target)
    if ratio is None:
      return None
    counts = _counts(self.arch, ratio, exponents)
    return ratio, ms(ratio), self._calibrator.fixed_trial(counts, logits=True)

  def _fixed_ms(self, exponents):
    """A function of the keep ratio: ms of a batch in fixed execution."""
    return lambda ratio: prediction.fixed_ms(
      self.table, self.arch, _counts(self.arch, ratio, exponents)
    )

  def _packed(self, exponents, target):
    """Trials correct what follows from equal counts, until the time of the real ones is right."""

    def uniform(ratio):
      counts = _counts(self.arch, ratio, exponents)
      return prediction.packed_ms(self.table, self.arch, counts[None])

    # What came of other schedules tells where to begin.
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
  """How many times as fast as the dense one a network is at most, by prediction."""
  none = np.zeros((1, arch.stages), int)
  least = (prediction.fixed_ms(table, arch, none[0]), prediction.packed_ms(table, arch, none))
  return table.dense / min(least)


def check_reachable(table, arch, speedups):
  """Raises InputError where one of several speed-ups cannot be reached, by prediction."""
  asked, most = max(speedups), fastest(table, arch)
  if asked > most:
    raise InputError(
      f"speed-up {asked:g} cannot be reached: with every patch pruned from block "
      f"{arch.prune_before[0]} on, {np.floor(100 * most) / 100:g} is predicted at most; ask for "
      "less, or prune earlier"
    )


def tilted(arch, s):
  """Stage weights that cut more in the last stages than the network's own, or less for s < 0."""
  own = arch.stage_weights or (1.0,) * arch.stages
  if s == 0:
    return own
  weights = np.array(own) * np.exp(s * np.linspace(-1, 1, arch.stages))
  return tuple(float(f"{w:.4g}") for w in weights)


def _exponents(arch, weights):
  return dataclasses.replace(arch, stage_weights=weights).stage_exponents


def _counts(arch, ratio, exponents):
  """(stages,) int patches that stages keep of every image."""
  return np.round(arch.patches * ratio ** np.array(exponents)).astype(int)


def _largest(ms, target):
  """The largest ratio whose time is no more than the target; None where none's is."""
  if ms(0.0) > target:
    return None
  if ms(1.0) <= target:
    return 1.0
  low, high = 0.0, 1.0
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    low, high = (middle, high) if ms(middle) <= target else (low, middle)
  return low
