"""Thresholds for a budget from images alone: no labels, no training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.progress import log
from asvit_jax.sparsity.complexity import (
  check_budget,
  gmacs,
  target_gmacs,
  uniform_gmacs,
  uniform_ratio,
)
from asvit_jax.sparsity.executions.in_place import masked

MAX_IMAGES = 1024  # evenly spaced; more move the thresholds less than the images' own spread
TOLERANCE = 1e-3  # of the budget
MAX_TRIALS = 12


def calibrate(network, batches, budget):
  """Finds thresholds that meet a budget on the given images.

  Over all images together, stage i keeps the share r^e of the patch tokens with the highest scores,
  e being the `Architecture.stage_exponents`: 1, 2, 3 by default (the geometric schedule of
  DynamicViT, arXiv:2106.02034); how many of them are in one image is left to its scores. Each stage
  sees the tokens that those before it leave, merged ones too. r is solved so that the measured mean
  GMACs are `budget` of the dense ones.

  Args:
    network: a `Network` whose architecture says where to prune; thresholds of it are not read.
    batches: list of {"image": (b, s, s, 3) uint8}, with "valid" (b,) bool where rows are padding.
    budget: share of the dense GMACs.

  Returns:
    The thresholds, (stages,) float32.

  Raises:
    InputError: a budget that cannot be met.
  """
  arch = network.arch
  check_budget(arch, budget)
  stages, target = arch.stages, target_gmacs(arch, budget)

  def measure(thresholds, stage):
    """(images, n) scores of a stage under the thresholds of those before it."""
    pruned = network.with_thresholds(thresholds)
    scores = [
      np.asarray(_stage_scores(pruned, batch["image"], stage))[batch.get("valid", slice(None))]
      for batch in batches
    ]
    return np.concatenate(scores)

  first = measure(np.zeros(stages), 0)  # no threshold comes before it

  def attempt(ratio):
    """Thresholds for a ratio, and the mean GMACs they give."""
    thresholds, kept = np.zeros(stages), []
    keep = np.ones(first.shape, bool)
    for stage in range(stages):
      scores = measure(thresholds, stage) if stage else first
      left = round(ratio ** arch.stage_exponents[stage] * keep.size)
      thresholds[stage] = _threshold(scores[keep], left)
      keep &= scores > thresholds[stage].astype(np.float32)
      kept.append(keep.sum(axis=1))
    costs = gmacs(arch, jnp.asarray(np.stack(kept, axis=-1), jnp.float32))
    return thresholds, float(costs.mean())

  best, miss = None, float("inf")
  low, high = 0.0, 1.0
  ratio = uniform_ratio(arch, target)
  for trial in range(MAX_TRIALS):
    thresholds, cost = attempt(ratio)
    if abs(cost / target - 1) < miss:
      best, miss = thresholds, abs(cost / target - 1)
    log(
      f"calibrating, trial {trial + 1}: keep ratio {ratio:.4f} gives {cost:.4f} GMACs, "
      f"wanted {target:.4f}"
    )
    if miss < TOLERANCE:
      break
    low, high = (ratio, high) if cost < target else (low, ratio)
    # GMACs grow nearly as the uniform ones do, so correct the aim by the miss, inside the bracket.
    step = uniform_ratio(arch, target + uniform_gmacs(arch, ratio) - cost)
    ratio = step if low < step < high else (low + high) / 2
  else:  # few images of few tokens have few different costs
    log(f"calibration stops {miss:.2%} from the budget, the nearest of {MAX_TRIALS} trials")
  return jnp.asarray(best, jnp.float32)


@functools.partial(jax.jit, static_argnums=2)
def _stage_scores(network, images, stage):
  outputs = masked(network.model, network.preprocessing.normalize(images))
  return outputs.scores[:, stage]


def _threshold(scores, keep):
  """The value that exactly `keep` of the scores exceed, barring ties."""
  ordered = np.sort(scores)[::-1].astype(np.float64)
  if keep == 0:
    return ordered[0]
  return (ordered[keep - 1] + (ordered[keep] if keep < len(ordered) else 0.0)) / 2
