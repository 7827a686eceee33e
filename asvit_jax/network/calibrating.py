"""Calibrates a network's stage weights and thresholds, for budgets or for speeds."""

import dataclasses

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.network import checking
from asvit_jax.pacing import reaching, speeds
from asvit_jax.sparsity import complexity, search
from asvit_jax.sparsity.counts import mean_of


def calibrate(network, images, budget, speedup, batch, seed, times):
  """The network with thresholds for budgets or speeds; see `Network.calibrate`."""
  checking.check_not_traced("Network.calibrate")
  if (budget is None) == (speedup is None):
    neither = "budget None is no number, and speedup is None, too"
    raise InputError(
      f"{'both budget and speedup are given' if budget is not None else neither}: "
      "Network.calibrate expects one of budget, a share of the dense GMACs, and speedup"
    )
  return (
    _for_budgets(network, images, budget)
    if speedup is None
    else _for_speedups(network, images, speedup, _batch(batch, times), seed, times)
  )


def _for_budgets(network, images, budget):
  budgets = complexity.shares(budget)
  complexity.check_budgets(network.arch, budgets)
  calibrator = network.calibrator(images)
  trials = [calibrator.thresholds(b) for b in budgets]
  rows = [trial.thresholds for trial in trials]
  kept = [mean_of(trial.kept) for trial in trials]
  if len(budgets) == 1:
    return network.with_thresholds(rows[0], counts=kept)
  return network.with_thresholds(np.stack(rows), budgets, kept)


def _batch(batch, times):
  """The requested number of images per batch, by default that of the times."""
  if batch is None:
    return speeds.BATCH if times is None else times.batch
  batch = speeds.check_batch(batch)
  if times is not None and times.batch != batch:
    raise InputError(f"batch {batch}, and the times are of batches of {times.batch}: give one")
  return batch


def _for_speedups(network, images, speedup, batch, seed, times):
  asked = speeds.asked(speedup)
  speeds.check_seed(seed)
  speeds.check_prunes(network.arch)
  found = reaching.reach(network, images, asked, batch, seed, times)
  if len({reached.weights for reached in found}) == 1:
    arch = dataclasses.replace(network.arch, stage_weights=found[0].weights)
    network = dataclasses.replace(network, arch=arch)
  paced = tuple(reached.speed for reached in found)
  return _holding(network, [reached.thresholds for reached in found], paced)


def _holding(network, thresholds, paced):
  """The network with one row of thresholds for each `Speed`; the only place that sets them."""
  counts = [speed.counts for speed in paced]
  if len(paced) == 1:
    network = network.with_thresholds(thresholds[0], counts=counts)
  else:
    budgets = tuple(speed.budget for speed in paced)
    network = network.with_thresholds(np.stack(thresholds), budgets, counts)
  return dataclasses.replace(network, speedups=paced)


def search_weights(network, images, budget, trials, seed):
  """The network with the best stage weights found, and `Found`; see `Network.search`."""
  checking.check_not_traced("Network.search")
  budget = complexity.share(budget)
  complexity.check_budget(network.arch, budget)  # before images run
  search.check(trials, seed)
  found = search.search(network.calibrator(images), budget, trials, seed)
  arch = dataclasses.replace(network.arch, stage_weights=found.stage_weights)
  return dataclasses.replace(network, arch=arch), found


def default_execution(network):
  """The name of the execution that inference uses; see `Network.default_execution`."""
  if not network.prunes:
    return "dense"
  return network.speedups[0].execution if network.speedups else "packed"
