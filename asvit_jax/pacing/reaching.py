"""Thresholds and counts with which a network is as fast as asked.

On this device, what is predicted is timed beside the dense network, and the aim corrected by the
miss. Of a device that is not here, what its compiler estimates has to do.
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

DECIDING = 128  # images, at most, that choose among ways to prune
TOLERANCE = 0.03  # of the speed-up
CORRECTIONS = 3
_ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class Paced:
  """What was found for a speed.

  Attributes:
    speed: the `Speed`.
    thresholds: (stages,) float64.
    weights: stage weights that they were calibrated with, see `Architecture.stage_weights`.
  """

  speed: Speed
  thresholds: np.ndarray
  weights: tuple[float, ...]


def reach(network, images, speedups, batch, seed=0, times=None):
  """Looks for what makes a network so many times as fast as the dense one.

  Args:
    network: a `Network` whose architecture says where it prunes; thresholds of it are not read.
    images: see `vit.images.batches`.
    speedups: tuple of them, see `speeds.asked`.
    batch: images a batch.
    seed: of the batches that packed execution is predicted for.
    times: the `Table` of a device, of this network and batch; by default that of this device.

  Returns:
    A `Paced` for each speed-up.

  Raises:
    InputError: a speed-up that cannot be reached, images that are none, speed-ups whose results
      are the same, or times of something else.
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
        f"speed-ups {one.speed.asked:g} and {other.speed.asked:g} come to the same GMACs: ask for "
        "speeds further apart"
      )
  return found


def _check_times(times, network):
  if times.network != describe_network(network):
    raise InputError(
      "the times are of another network: another architecture, compute type or way to prune; make "
      "them of the network that is calibrated"
    )


def _reach_one(speedup, solver, calibrator, timing):
  """The `Paced` of a speed-up."""
  arch, dense = calibrator.arch, solver.table.dense
  log(f"speed-up {speedup:g}: {dense / speedup:.1f} of {dense:.1f} ms a batch")
  target = dense / speedup
  candidate = solver.best(target)
  log(f"speed-up {speedup:g}: {candidate.execution} changes predictions least")
  found, nearest = None, None
  for correction in range(CORRECTIONS + 1):
    result = _evaluate(speedup, candidate, solver, calibrator, timing)
    if timing is None:
      log(
        f"speed-up {speedup:g}: predicted {result.speed.predicted:.2f} at "
        f"{result.speed.budget:.3f} of the GMACs, from {result.speed.device}: not measured"
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
      f"{correction + 1} tries; this device may be busy, or the network have too few tokens"
    )
  # Where the network's own weights say the same at this budget, they stay as they are.
  scheduled = schedule.with_stage_weights(arch, found.speed.budget).stage_weights
  own = arch.stage_weights or (1.0,) * arch.stages
  same = candidate.weights == own and scheduled == arch.stage_weights
  return dataclasses.replace(found, weights=arch.stage_weights if same else candidate.weights)


def _evaluate(speedup, candidate, solver, calibrator, timing):
  """The `Paced` of a `Candidate`, timed where `timing` is not None."""
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
  budget = min(gmacs / dense_gmacs(arch), 1.0)  # comparing tokens costs, too
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
  """Times of a batch, in turn with the dense network.

  Args:
    network: a dense `Network`.
    given: list of batches of images, of `vit.images.batches`.
    batch: images that are timed at once.
  """

  def __init__(self, network, given, batch):
    self._network, self._given, self._batch = network, given, batch
    self._dense = None

  def __call__(self, execution, counts, trial):
    """Time of the dense network ÷ that of an execution, the median over the rounds."""
    network, images = self._network, self._images(trial)
    # As users call it: what packed compiles follows from the counts, too.
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
    """A batch of images whose kept tokens are evenly spaced quantiles of those of all."""
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
