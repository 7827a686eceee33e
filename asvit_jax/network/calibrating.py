"""Sets a network's thresholds, counts and stage weights on images, for budgets or for speeds."""

import dataclasses

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.network import checking
from asvit_jax.pacing import reaching, speeds
from asvit_jax.sparsity import complexity, search
from asvit_jax.sparsity.schedule import mean_counts
from asvit_jax.vit import images as image_arrays


@dataclasses.dataclass(frozen=True)
class Reached:
  """How near a calibration or a search came to a budget or a speed-up, on its images.

  Its text, `str`, is one line.

  Attributes:
    budget: share of the dense GMACs that was asked for; None if a speed-up was asked for.
    share: share of the dense GMACs that was reached, the mean over the images.
    gmacs: the same in GMACs per image.
    counts: mean number of patches that each stage keeps, rounded.
    divergence: KL(dense ‖ pruned) of the predictions, nats, the mean over the images, and the same
      before the search; None for a calibration, which does not compute it.
    speed: the `Speed`, asked for and reached; None if a budget was asked for.
  """

  budget: float | None
  share: float
  gmacs: float
  counts: tuple[int, ...]
  divergence: tuple[float, float] | None = None
  speed: speeds.Speed | None = None

  def __str__(self):
    asked = f"budget {self.budget:g}" if self.speed is None else f"speed-up {self.speed.asked:g}"
    kept = ", ".join(map(str, self.counts))
    text = (
      f"{asked}: reached {self.share:.4f} of the dense GMACs ({self.gmacs:.4f} per image), keeping "
      f"{kept} patches"
    )
    if self.divergence is not None:
      text += f"; KL {self.divergence[0]:.5f} nats, {self.divergence[1]:.5f} before the search"
    if self.speed is not None and self.speed.reached is not None:
      text += f"; {self.speed.reached:.2f} times as fast as dense, measured on {self.speed.device}"
    elif self.speed is not None:
      text += (
        f"; {self.speed.predicted:.2f} times as fast as dense, predicted for {self.speed.device}"
      )
    return text


def calibrate(network, images, budget, speedup, batch, seed, times):
  """The network with thresholds that meet budgets or speed-ups; see `Network.calibrate`."""
  checking.check_not_traced("Network.calibrate")
  if (budget is None) == (speedup is None):
    neither = "budget None is not a number, and no speedup is given either"
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
  counts = [mean_counts(trial.kept) for trial in trials]
  dense = complexity.dense_gmacs(network.arch)
  reached = [
    Reached(budget, trial.gmacs / dense, trial.gmacs, kept)
    for budget, trial, kept in zip(budgets, trials, counts, strict=True)
  ]
  if len(budgets) == 1:
    network = network.with_thresholds(rows[0], counts=counts)
  else:
    network = network.with_thresholds(np.stack(rows), budgets, counts)
  return _report(network, "calibrated", reached)


def _batch(batch, times):
  """The requested number of images per batch, by default that of the times."""
  if batch is None:
    return speeds.BATCH if times is None else times.batch
  batch = speeds.check_batch(batch)
  if times is not None and times.batch != batch:
    raise InputError(
      f"batch {batch} contradicts the times, which are of batches of {times.batch}: leave it out, "
      "or measure times for it"
    )
  return batch


def _for_speedups(network, images, speedup, batch, seed, times):
  asked = speeds.asked(speedup)
  speeds.check_seed(seed)
  speeds.check_prunes(network.arch)
  network.arch.check_classifies("calibration for a speed-up, which compares predictions, of")
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
  network = dataclasses.replace(network, speedups=paced)
  dense = complexity.dense_gmacs(network.arch)
  reached = [Reached(None, s.budget, s.budget * dense, s.counts, speed=s) for s in paced]
  return _report(network, "calibrated", reached)


def _report(network, done, reached):
  """The network, a new one, with its `reached`; the log gets a line for each."""
  object.__setattr__(network, "reached", tuple(reached))
  for each in reached:
    log(f"{done}: {each}")
  return network


def search_weights(network, images, budget, trials, seed):
  """The network with the best stage weights found, and `Found`; see `Network.search`."""
  checking.check_not_traced("Network.search")
  budget = complexity.share(budget)
  complexity.check_budget(network.arch, budget)  # before images run
  search.check_arguments(trials, seed)
  network.arch.check_classifies("a search, which compares predictions, of")
  found = search.search(network.calibrator(images), budget, trials, seed)
  arch = dataclasses.replace(network.arch, stage_weights=found.stage_weights)
  reached = Reached(
    budget,
    found.gmacs / complexity.dense_gmacs(arch),
    found.gmacs,
    found.counts,
    (found.divergence, found.divergence_before),
  )
  return _report(dataclasses.replace(network, arch=arch), "searched", [reached]), found


def count_kept(network, images):
  """Rounded mean counts of kept patches, one row per budget; see `Network.mean_counts`."""
  network.check_execution("masked")
  at = [network.at(budget) for budget in network.budgets] or [network]
  kept = [[] for _ in at]
  for batch in image_arrays.batches(images, network.arch, network.preprocessing):
    for of_budget, one in zip(kept, at, strict=True):
      outputs = one(batch["image"], "masked")
      if not np.isfinite(np.asarray(outputs.logits)[batch["valid"]]).all():
        raise InputError(
          "the network's predictions for these images are not finite (NaN or infinite), so the "
          "kept tokens are meaningless: check its weights, which may be damaged or too large"
        )
      of_budget.append(np.asarray(outputs.kept)[batch["valid"]])
  return tuple(mean_counts(np.concatenate(of_budget)) for of_budget in kept)
