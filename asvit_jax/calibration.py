"""Thresholds for a budget from images alone: no labels, no training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from asvit_jax import cli, complexity, executions, vit
from asvit_jax.data import transforms

MAX_IMAGES = 1024  # evenly spaced; more move the thresholds less than the images' own spread
TOLERANCE = 1e-3  # of the budget
MAX_TRIALS = 12


def calibrate(arch, params, batches, budget, dtype=jnp.float32):
  """Finds thresholds that meet a budget on the given images.

  Over all images together, stage i keeps the share r^(i+1) of the patch tokens with the highest
  scores (the geometric schedule of DynamicViT, arXiv:2106.02034); how many of them are in one image
  is left to its scores. r is solved so that the measured mean GMACs are `budget` of the dense ones.

  Args:
    arch: an `Architecture` that prunes.
    params: its parameters; thresholds among them are not read.
    batches: list of {"image": (b, s, s, 3) uint8}, with "valid" (b,) bool where rows are padding.
    budget: share of the dense GMACs.
    dtype: compute type.

  Returns:
    The parameters with new thresholds.

  Raises:
    InputError: a budget that cannot be met.
  """
  complexity.check_budget(arch, budget)
  stages, target = len(arch.prune_before), budget * complexity.dense_gmacs(arch)
  graphdef, _ = vit.abstract(arch, dtype=dtype)

  @functools.partial(jax.jit, static_argnums=2)
  def stage_scores(params, images, stage):
    outputs = executions.masked(nnx.merge(graphdef, params), transforms.normalize(images))
    return outputs.scores[:, stage]

  def measure(thresholds, stage):
    """(images, n) scores of a stage under the thresholds of those before it."""
    with_thresholds = params | {"thresholds": jnp.asarray(thresholds, jnp.float32)}
    scores = [
      np.asarray(stage_scores(with_thresholds, batch["image"], stage))[
        batch.get("valid", slice(None))
      ]
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
      thresholds[stage] = _threshold(scores[keep], round(ratio ** (stage + 1) * keep.size))
      keep &= scores > thresholds[stage].astype(np.float32)
      kept.append(keep.sum(axis=1))
    gmacs = complexity.gmacs(arch, jnp.asarray(np.stack(kept, axis=-1), jnp.float32))
    return thresholds, float(gmacs.mean())

  best, miss = None, float("inf")
  low, high = 0.0, 1.0
  ratio = uniform_ratio(arch, target)
  for trial in range(MAX_TRIALS):
    thresholds, gmacs = attempt(ratio)
    if abs(gmacs / target - 1) < miss:
      best, miss = thresholds, abs(gmacs / target - 1)
    cli.log(
      f"calibrating, trial {trial + 1}: keep ratio {ratio:.4f} gives {gmacs:.4f} GMACs, "
      f"wanted {target:.4f}"
    )
    if miss < TOLERANCE:
      break
    low, high = (ratio, high) if gmacs < target else (low, ratio)
    # GMACs grow nearly as the uniform ones do, so correct the aim by the miss, inside the bracket.
    step = uniform_ratio(arch, target + _uniform_gmacs(arch, ratio) - gmacs)
    ratio = step if low < step < high else (low + high) / 2
  else:  # few images of few tokens have few different costs
    cli.log(f"calibration stops {miss:.2%} from the budget, the nearest of {MAX_TRIALS} trials")
  return params | {"thresholds": jnp.asarray(best, jnp.float32)}


def _threshold(scores, keep):
  """The value that exactly `keep` of the scores exceed, barring ties."""
  ordered = np.sort(scores)[::-1].astype(np.float64)
  if keep == 0:
    return ordered[0]
  return (ordered[keep - 1] + (ordered[keep] if keep < len(ordered) else 0.0)) / 2


def _uniform_gmacs(arch, ratio):
  """GMACs if every image kept the same share."""
  kept = arch.patches * ratio ** np.arange(1, len(arch.prune_before) + 1)
  return float(complexity.gmacs(arch, jnp.asarray(kept, jnp.float32)))


def uniform_ratio(arch, target):
  """The ratio whose uniform GMACs are `target`, by bisection."""
  low, high = 0.0, 1.0
  for _ in range(30):
    middle = (low + high) / 2
    low, high = (middle, high) if _uniform_gmacs(arch, middle) < target else (low, middle)
  return (low + high) / 2
