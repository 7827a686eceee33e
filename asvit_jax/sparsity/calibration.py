"""Calibrates thresholds for a budget on images alone, without labels or training."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.complexity import (
  check_budget,
  gmacs,
  target_gmacs,
  uniform_gmacs,
  uniform_ratio,
)
from asvit_jax.sparsity.executions import in_place
from asvit_jax.sparsity.executions.grouped import CACHED, images_at_once
from asvit_jax.sparsity.gates import keep_above, keep_best
from asvit_jax.sparsity.pruning import Pruning
from asvit_jax.sparsity.schedule import with_stage_weights
from asvit_jax.vit.images import batches, normalized

MAX_IMAGES = 1024  # evenly spaced; more move the thresholds less than the images' own spread
TOLERANCE = 1e-3  # of the budget
MAX_TRIALS = 12


@dataclasses.dataclass(frozen=True)
class Trial:
  """The result of one keep ratio.

  Attributes:
    thresholds: (stages,) float64; None if every image keeps the same number of patches.
    gmacs: mean GMACs over the images.
    logits: (images, classes) of the network with these thresholds, or None.
    kept: (images, stages) int, number of patches that each stage keeps.
  """

  thresholds: np.ndarray | None
  gmacs: float
  logits: np.ndarray | None
  kept: np.ndarray


class Calibrator:
  """Sets thresholds on images; the blocks before the first stage run once, for all budgets.

  Over all images together, stage i keeps the share r^e of the patch tokens with the highest scores.
  The exponents e are the `Architecture.stage_exponents` at that budget, see `schedule`: 1, 2, 3 by
  default (the geometric schedule of DynamicViT, arXiv:2106.02034). The number of tokens of a single
  image follows from its scores, and from `Architecture.count_multiple`. Each stage runs on the
  tokens that the stages before it leave, merged ones included. r is solved for, so that the
  measured mean GMACs equal the budget.

  Args:
    network: a `Network` whose architecture has pruning stages; its thresholds are ignored.
    images: see `vit.images.batches`: (n, s, s, 3) uint8 pixels or normalised floats, or batches,
      {"image": images}, with "valid" (b,) bool that is false for padding. The tokens of all images
      at the first stage stay in memory.

  Raises:
    InputError: invalid images, or scores that are not finite.
  """

  def __init__(self, network, images):
    self.arch = network.arch
    # Compiled programs do not depend on the stage weights.
    arch = dataclasses.replace(network.arch, stage_weights=())
    network = dataclasses.replace(network, arch=arch)
    self._network = network.with_thresholds(np.zeros(arch.stages))
    self._stages, self._valid_of = [], []  # a group each
    for batch in batches(images, arch, network.preprocessing):
      groups = _in_groups(arch, batch["image"])
      self._stages += [_before_first_stage(self._network, group) for group in groups]
      self._valid_of += np.split(batch["valid"], len(groups))
    self._first_scores = self._scores(self._stages)

  @property
  def images(self):
    """Number of images, without padding."""
    return int(self._valid.sum())

  @property
  def _valid(self):
    return np.concatenate(self._valid_of)

  def subset(self, most):
    """A `Calibrator` on evenly spaced groups of at most `most` images, or on one group."""
    chosen = np.flatnonzero([valid.any() for valid in self._valid_of])
    size = max(len(valid) for valid in self._valid_of)
    chosen = chosen[_evenly(len(chosen), max(1, most // size))]
    fewer = copy.copy(self)
    fewer._stages = [self._stages[i] for i in chosen]
    fewer._valid_of = [self._valid_of[i] for i in chosen]
    fewer._first_scores = fewer._scores(fewer._stages)
    return fewer

  def thresholds(self, budget):
    """The `Trial` whose mean GMACs meet a budget, a share of the dense GMACs.

    Raises:
      InputError: a budget that cannot be met.
    """
    check_budget(self.arch, budget)
    arch = with_stage_weights(self.arch, budget)
    target = target_gmacs(arch, budget)
    best, miss = None, float("inf")
    low, high = 0.0, 1.0
    ratio = uniform_ratio(arch, target)
    for number in range(MAX_TRIALS):
      trial = self.trial(ratio, arch.stage_exponents)
      if abs(trial.gmacs / target - 1) < miss:
        best, miss = trial, abs(trial.gmacs / target - 1)
      log(
        f"calibrating, trial {number + 1}: keep ratio {ratio:.4f} gives {trial.gmacs:.4f} GMACs, "
        f"target {target:.4f}"
      )
      if miss < TOLERANCE:
        break
      low, high = (ratio, high) if trial.gmacs < target else (low, ratio)
      # GMACs grow nearly as the uniform ones do: correct the aim by the miss, inside the bracket.
      step = uniform_ratio(arch, target + uniform_gmacs(arch, ratio) - trial.gmacs)
      ratio = step if low < step < high else (low + high) / 2
    else:  # few images of few tokens have few different costs
      log(f"calibration stops {miss:.2%} from the budget, the nearest of {MAX_TRIALS} trials")
    return best

  def trial(self, ratio, exponents=None, logits=False):
    """The `Trial` of a keep ratio.

    Args:
      ratio: the keep ratio r.
      exponents: the exponent e of each stage; by default those of the network.
      logits: whether to compute predictions, too, which runs the last blocks.
    """
    arch = self.arch
    stages, scores = self._stages, self._first_scores
    thresholds, kept = np.zeros(arch.stages), []
    keep = np.ones(scores.shape, bool)
    for i, exponent in enumerate(exponents or arch.stage_exponents):
      if i:
        stages = [_after_stage(self._network, stage, thresholds[i - 1], i - 1) for stage in stages]
        scores = self._scores(stages)
      thresholds[i] = _threshold(scores[keep], round(ratio**exponent * keep.size))
      rules = arch.count_multiple, arch.prefix_tokens, arch.least_patches
      keep = np.asarray(_kept(scores, keep, thresholds[i], *rules))
      kept.append(keep.sum(axis=1))
    kept = np.stack(kept, axis=-1)
    costs = gmacs(arch, jnp.asarray(kept, jnp.float32))
    left = None
    if logits:
      left = self._gathered(
        _logits(self._network, s, thresholds[-1], arch.stages - 1) for s in stages
      )
    return Trial(thresholds, float(costs.mean()), left, kept)

  def fixed_trial(self, counts, logits=False):
    """The `Trial` in which every image keeps the same numbers of patches, by highest scores.

    Args:
      counts: (stages,) number of patches that each stage keeps.
      logits: as for `trial`.
    """
    arch, stages, left = self.arch, self._stages, None
    for i, count in enumerate(counts[:-1] if logits else ()):
      stages = [_after_stage(self._network, stage, count, i, True) for stage in stages]
    if logits:
      left = self._gathered(
        _logits(self._network, s, counts[-1], arch.stages - 1, True) for s in stages
      )
    kept = np.tile(np.asarray(counts, int), (self.images, 1))
    return Trial(None, float(gmacs(arch, jnp.asarray(counts, jnp.float32))), left, kept)

  def dense_logits(self):
    """(images, classes) logits of the dense network."""
    return self._gathered(_dense_logits(self._network, stage) for stage in self._stages)

  def _scores(self, stages):
    """(images, n) scores of the patch tokens; raises InputError if one is not finite."""
    scores = self._gathered(_scores(self._network, stage) for stage in stages)
    if not np.isfinite(scores).all():
      raise InputError(
        "the network's scores of these images are not finite (NaN or infinite), so thresholds "
        "cannot be set: check its weights, which may be damaged or too large"
      )
    return scores

  def _gathered(self, groups):
    """Concatenates the groups' results to (images, …), without padding."""
    groups = list(groups)  # all of them are on their way before the first is waited for
    return np.concatenate([np.asarray(of_group) for of_group in groups])[self._valid]


def _in_groups(arch, images):
  """Splits images into groups that fit a CPU's cache, see `grouped`; one group elsewhere."""
  if jax.default_backend() != "cpu":
    return [images]
  return np.split(images, len(images) // images_at_once(arch, len(images), CACHED))


@jax.jit
@usual
def _before_first_stage(network, images):
  return in_place.before_first_stage(network.model, normalized(images, network.preprocessing))


@jax.jit
@usual
def _scores(network, stage):
  return Pruning.of(network.arch).scores(stage)[:, network.arch.prefix_tokens :]


@functools.partial(jax.jit, static_argnums=(3, 4))
@usual
def _after_stage(network, stage, limit, index, fixed=False):
  """The `Stage` after one that keeps the scores above `limit`, or, if `fixed`, the best `limit`."""
  arch, pruning = network.arch, Pruning.of(network.arch)
  similarity = pruning.similarity(stage)
  scores = pruning.scores(stage, similarity)
  if fixed:  # the scores before the patches are infinite
    keep = keep_best(scores, stage.present, arch.prefix_tokens + limit)
  else:
    keep = keep_above(scores, stage.present, limit, arch.count_multiple, arch.least_patches)
  keep = keep[:, arch.prefix_tokens :].astype(jnp.float32)
  return in_place.after_stage(network.model, index, stage, keep, similarity=similarity)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
@usual
def _kept(scores, present, threshold, multiple, prefix, least):
  """(images, n) bool, the patches of the mask `present` whose scores keep them."""
  always = ((0, 0), (prefix, 0))
  scores = jnp.pad(scores, always, constant_values=jnp.inf)
  present = jnp.pad(present, always, constant_values=True)
  return keep_above(scores, present, threshold, multiple, least)[:, prefix:]


@functools.partial(jax.jit, static_argnums=(3, 4))
@usual
def _logits(network, stage, limit, index, fixed=False):
  """(b, classes) logits of images whose last stage, `index`, is at `stage`; see `_after_stage`."""
  last = _after_stage(network, stage, limit, index, fixed)
  keep = last.present[:, network.arch.prefix_tokens :]
  attend = Pruning.of(network.arch).among(keep, last.sizes, last.places)
  return in_place.finish(network.model, last.x, attend, [keep], sizes=last.sizes).logits


@jax.jit
@usual
def _dense_logits(network, stage):
  """(b, classes) logits of the dense network from its first `Stage`."""
  model, first, x = network.model, network.arch.prune_before[0], stage.x
  if network.arch.prune_inside:
    x = model.blocks[first - 1].fed_forward(x)
  return in_place.finish_dense(model, first, x).logits


def _evenly(count, most):
  """At most `most` of the indices below `count`, evenly spaced."""
  return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _threshold(scores, keep):
  """A threshold that exactly `keep` of the scores exceed, barring ties."""
  ordered = np.sort(scores)[::-1].astype(np.float64)
  if keep == 0:
    return ordered[0] if len(ordered) else 0.0  # none if earlier stages removed all tokens
  return (ordered[keep - 1] + (ordered[keep] if keep < len(ordered) else 0.0)) / 2
