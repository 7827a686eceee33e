"""Finds thresholds and counts with which a network reaches a speed-up.

On this device, the predicted solution is timed in turn with the dense network, and the target is
corrected by the deviation. For a device that is not here, its compiler's estimates are used, and
nothing is measured.
"""

import dataclasses
import functools
import itertools
import statistics

import jax
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.core.turns import in_turn, representative
from asvit_jax.pacing import cache, running
from asvit_jax.pacing.solving import Solver, check_reachable
from asvit_jax.pacing.speeds import Speed
from asvit_jax.pacing.table import describe_network
from asvit_jax.sparsity import schedule
from asvit_jax.sparsity.calibration import Calibrator
from asvit_jax.sparsity.complexity import dense_gmacs
from asvit_jax.sparsity.schedule import mean_counts
from asvit_jax.vit.images import batches

DECIDING = 128  # largest number of images that choose between candidates
TOLERANCE = 0.03  # relative deviation from the requested speed-up
CORRECTIONS = 3
_ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class Paced:
  """The solution for one speed-up.

  Attributes:
    speed: the `Speed`.
    thresholds: (stages,) float64.
    weights: stage weights of the calibration, see `Architecture.stage_weights`.
  """

  speed: Speed
  thresholds: np.ndarray
  weights: tuple[float, ...]


def reach(network, images, speedups, batch, seed=0, times=None):
  """Finds thresholds, counts and stage weights for speed-ups.

  Args:
    network: a `Network` whose architecture has the stages; its thresholds are not read.
    images: see `vit.images.batches`.
    speedups: tuple of speed-ups, see `speeds.asked`.
    batch: images per batch.
    seed: seed of the random batches for which packed execution is predicted.
    times: the `Table` of a device for this network and batch; this device's by default.

  Returns:
    A `Paced` for each speed-up.

  Raises:
    InputError: a speed-up that cannot be reached, invalid images, speed-ups with the same result,
      or times of another network.
  """
  network = network.dense
  given = list(batches(images, network.arch, network.preprocessing))
  if times is not None:
    _check_times(times, network)
  table = times or cache.load_or_measure(network, batch)
  check_reachable(table, network.arch, speedups)  # before images run
  calibrator = Calibrator(network, given)
  solver = Solver(table, calibrator.subset(DECIDING), seed)
  timing = None if table.estimated else _Timing(network, given, batch)
  found = [_reach_one(speedup, solver, calibrator, timing) for speedup in speedups]
  for one, other in itertools.combinations(found, 2):
    if one.speed.budget == other.speed.budget:
      raise InputError(
        f"speed-ups {one.speed.asked:g} and {other.speed.asked:g} lead to the same GMACs: give "
        "speed-ups further apart"
      )
  return found


def _check_times(times, network):
  if times.network != describe_network(network):
    raise InputError(
      "the times are of another network, with another architecture, compute type or way to prune; "
      "measure the network that is to be calibrated"
    )


def _reach_one(speedup, solver, calibrator, timing):
  """The `Paced` of a speed-up."""
  arch, dense = calibrator.arch, solver.table.dense
  log(f"speed-up {speedup:g}: target {dense / speedup:.1f} ms per batch, dense {dense:.1f} ms")
  target = dense / speedup
  candidate = solver.best(target)
  log(f"speed-up {speedup:g}: {candidate.execution} execution changes predictions least")
  found, nearest = None, None
  for correction in range(CORRECTIONS + 1):
    result = _evaluate(speedup, candidate, solver, calibrator, timing)
    if timing is None:
      log(
        f"speed-up {speedup:g}: predicted {result.speed.predicted:.2f} at "
        f"{result.speed.budget:.3f} of the GMACs for {result.speed.device}, not measured"
      )
      found, nearest = result, 0.0
      break
    miss = abs(result.speed.reached / speedup - 1)
    log(
      f"speed-up {speedup:g}: predicted {result.speed.predicted:.2f}, reached "
      f"{result.speed.reached:.2f} at {result.speed.budget:.3f} of the GMACs"
    )
    if nearest is None or miss < nearest:
      found, nearest = result, miss
    if miss <= TOLERANCE or correction == CORRECTIONS:
      break
    target *= result.speed.reached / speedup
    following = solver.solved(candidate.execution, candidate.weights, target)
    if following is None or following.ratio == candidate.ratio:
      break
    candidate = following
  if nearest > TOLERANCE:
    log(
      f"warning: speed-up {speedup:g}: {found.speed.reached:.2f} was measured, the nearest of "
      f"{correction + 1} attempts; this device may be busy, or the network may have too few tokens"
    )
  # If the network's own stage weights give the same at this budget, they are kept.
  scheduled = schedule.with_stage_weights(arch, found.speed.budget).stage_weights
  own = arch.stage_weights or (1.0,) * arch.stages
  same = candidate.weights == own and scheduled == arch.stage_weights
  return dataclasses.replace(found, weights=arch.stage_weights if same else candidate.weights)


def _evaluate(speedup, candidate, solver, calibrator, timing):
  """The `Paced` of a `Candidate`, timed if `timing` is not None."""
  arch = calibrator.arch
  exponents = dataclasses.replace(arch, stage_weights=candidate.weights).stage_exponents
  trial = calibrator.trial(candidate.ratio, exponents)
  counts, gmacs = candidate.counts, trial.gmacs
  if candidate.execution == running.FIXED:
    gmacs = calibrator.fixed_trial(counts).gmacs
  else:
    counts = mean_counts(trial.kept)
  reached = None if timing is None else timing(candidate.execution, counts, trial)
  predicted = solver.table.dense / candidate.predicted
  budget = min(gmacs / dense_gmacs(arch), 1.0)  # comparing tokens costs extra, so it may exceed 1
  speed = Speed(
    speedup,
    reached,
    predicted,
    candidate.execution,
    budget,
    counts,
    solver.table.batch,
    solver.table.device,
  )
  return Paced(speed, trial.thresholds, candidate.weights)


class _Timing:
  """Times a batch in turn with the dense network.

  Args:
    network: a dense `Network`.
    given: list of batches of images, of `vit.images.batches`.
    batch: number of images that are timed at once.
  """

  def __init__(self, network, given, batch):
    self._network, self._given, self._batch = network, given, batch
    self._dense = None

  def __call__(self, execution, counts, trial):
    """Time of the dense network ÷ that of an execution, the median over the rounds."""
    network, images = self._network, self._images(trial)
    # With counts, as users call it, because packed execution compiles only widths near them.
    pruned = network.with_thresholds(trial.thresholds, counts=counts)
    if self._dense is None:
      self._dense = _compiled(running.forward_of("dense"), network, images)
    ours = _compiled(running.forward_of(execution), pruned, images)
    calls = {
      "dense": functools.partial(_run_program, self._dense, network, images),
      "ours": functools.partial(_run_program, ours, pruned, images),
    }
    for call in calls.values():
      call()
    seconds = in_turn(calls, _ROUNDS)
    return statistics.median(d / t for d, t in zip(*seconds.values(), strict=True))

  def _images(self, trial):
    """A batch of images whose numbers of kept tokens are evenly spaced quantiles of all images'."""
    wanted = representative(trial.kept.sum(axis=1), self._batch)
    found, start = {}, 0
    for batch in self._given:
      rows = np.flatnonzero(batch["valid"])
      for index in wanted[(wanted >= start) & (wanted < start + len(rows))]:
        found[int(index)] = np.asarray(batch["image"][rows[index - start]])
      start += len(rows)
    return jax.device_put(np.stack([found[int(index)] for index in wanted]))


def _compiled(forward, network, images):
  return jax.jit(forward).lower(network, images).compile()


def _run_program(program, network, images):
  jax.block_until_ready(program(network, images))
