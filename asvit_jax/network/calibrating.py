"""How a network gets its stages and thresholds: for budgets, or for speeds."""

import dataclasses

import numpy as np

from asvit_jax.config import options
from asvit_jax.core.errors import InputError
from asvit_jax.network import checking
from asvit_jax.pacing import reaching, running, speeds
from asvit_jax.sparsity import complexity, search


def calibrate(network, images, budget, speedup, batch, seed):
  """See `Network.calibrate`."""
  checking.check_not_traced("Network.calibrate")
  if (budget is None) == (speedup is None):
    given = "both" if budget is not None else "neither"
    raise InputError(
      f"Network.calibrate was given {given} of budget, a share of the dense GMACs, and speedup: "
      "expected one of them"
    )
  return (
    _for_budgets(network, images, budget)
    if speedup is None
    else _for_speedups(network, images, speedup, batch, seed)
  )


def _for_budgets(network, images, budget):
  budgets = complexity.shares(budget)
  complexity.check_budgets(network.arch, budgets)
  calibrator = network.calibrator(images)
  rows = [calibrator.thresholds(b).thresholds for b in budgets]
  if len(budgets) == 1:
    return network.with_thresholds(rows[0])
  return network.with_thresholds(np.stack(rows), budgets)


def _for_speedups(network, images, speedup, batch, seed):
  asked, batch = speeds.asked(speedup), speeds.check_batch(batch)
  speeds.check_seed(seed)
  speeds.check_prunes(network.arch)
  found = reaching.reach(network, images, asked, batch, seed)
  if len({reached.weights for reached in found}) == 1:
    arch = dataclasses.replace(network.arch, stage_weights=found[0].weights)
    network = dataclasses.replace(network, arch=arch)
  paced = tuple(reached.speed for reached in found)
  return _holding(network, [reached.thresholds for reached in found], paced)


def _holding(network, thresholds, paced):
  """The network with a row of thresholds for each `Speed`, the one place where they become its."""
  if len(paced) == 1:
    network = network.with_thresholds(thresholds[0])
  else:
    network = network.with_thresholds(np.stack(thresholds), tuple(s.budget for s in paced))
  return dataclasses.replace(network, speedups=paced)


def at_speedup(network, speedup):
  """See `Network.at_speedup`."""
  (asked,) = speeds.asked((speedup,))
  found = [speed for speed in network.speedups if speed.asked == asked]
  if not found:
    known = ", ".join(f"{speed.asked:g}" for speed in network.speedups)
    known = f"the network was calibrated for {known}" if known else "the network was for none"
    raise InputError(
      f"speed-up {asked:g}: {known}: ask for one of these, or calibrate for it with "
      "--calibrate-speedup (`Network.calibrate`)"
    )
  one = network.at(found[0].budget) if network.budgets else network
  return dataclasses.replace(one, speedups=(found[0],))


def search_weights(network, images, budget, trials, seed):
  """See `Network.search`."""
  checking.check_not_traced("Network.search")
  budget = complexity.share(budget)
  complexity.check_budget(network.arch, budget)  # before images run
  search.check(trials, seed)
  found = search.search(network.calibrator(images), budget, trials, seed)
  arch = dataclasses.replace(network.arch, stage_weights=found.stage_weights)
  return dataclasses.replace(network, arch=arch), found


def merging(network):
  """See `Network.merging`."""
  if network.prunes:
    raise InputError(
      "the network has thresholds, which were set for its own stages: take `.dense.merging()`, "
      "and calibrate it"
    )
  arch = dataclasses.replace(network.arch, **options.merging(network.arch.depth))
  return dataclasses.replace(network, arch=arch)


def default_execution(network):
  """See `Network.default_execution`."""
  if not network.prunes:
    return "dense"
  return running.default(network.speedups[0].execution) if network.speedups else "packed"
