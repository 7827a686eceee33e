"""The training objective: the weighted sum of the loss terms that apply to a network."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from asvit_jax.losses import WEIGHTS, criteria
from asvit_jax.losses.terms import LOSSES
from asvit_jax.sparsity.complexity import gmacs
from asvit_jax.sparsity.executions.in_place import Outputs, dense, masked
from asvit_jax.sparsity.gates import TEMPERATURE, straight_through_gate


@dataclasses.dataclass(frozen=True)
class Batch:
  """The inputs of a loss term besides the forward pass.

  Attributes:
    targets: (b, classes) soft labels.
    teacher: `Outputs` of the dense teacher; None for a dense network.
    mean: function of a (b,) array that returns its mean over the global batch.
    mean_gmacs: () mean GMACs per image over the global batch; None for a dense network.
    mean_kept: () mean number of patch tokens that the last stage keeps, likewise.
    target_gmacs: GMACs per image that the budget allows, a float or (); None for a dense network.
    criterion: a `Criterion`.
  """

  targets: jax.Array
  teacher: Outputs | None
  mean: Callable[[Any], Any]
  mean_gmacs: jax.Array | None = None
  mean_kept: jax.Array | None = None
  target_gmacs: float | jax.Array | None = None
  criterion: Callable[[Any, Any], Any] = criteria.CROSS_ENTROPY


@dataclasses.dataclass(frozen=True)
class Objective:
  """The training objective: the weights of the loss terms, and the compute budget.

  Attributes:
    weights: {name of a term of `LOSSES`: weight}; terms that are not named have their default.
    target_gmacs: GMACs per image that the budget allows; None for a dense network.
    temperature: temperature of the gate, see `gates.straight_through_gate`.
    remat: whether the backward pass recomputes blocks instead of storing their activations.
    criterion: a `Criterion`.
  """

  weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
  target_gmacs: float | None = None
  temperature: float = TEMPERATURE
  remat: bool = False
  criterion: Callable[[Any, Any], Any] = criteria.CROSS_ENTROPY

  def __call__(
    self, model, images, targets, teacher=None, mean=jnp.mean, totals=None, target_gmacs=None
  ):
    """The loss of one batch.

    Args:
      model: a `VisionTransformer`.
      images: (b, height, width, 3) normalised.
      targets: (b, classes) soft labels.
      teacher: `Outputs` of the dense teacher; not read for a dense network.
      mean: function of a (b,) array that returns its mean over the global batch. The budget term is
        the absolute difference of the mean GMACs, so the mean must include all devices.
      totals: means of `measure` over the whole batch if `images` are a part of it, else None.
      target_gmacs: () target for this step instead of the objective's own, or None.

    Returns:
      () total, and ({term: ()}, `Outputs`); for a pruned network, the terms include the mean
      `gmacs`.
    """
    if self.target_gmacs is None:
      outputs = dense(model, images, remat=self.remat)
      batch = Batch(targets, None, mean, criterion=self.criterion)
      total, terms = self._sum(model.arch, outputs, batch)
      return total, (terms, outputs)
    gate = functools.partial(straight_through_gate, temperature=self.temperature)
    outputs = masked(model, images, gate, remat=self.remat)
    mean_gmacs = mean(gmacs(model.arch, outputs.kept))
    mean_kept = mean(outputs.kept[:, -1])
    if totals is not None:  # the value is that of the whole batch, the gradient that of this part
      mean_gmacs = totals["gmacs"] + mean_gmacs - jax.lax.stop_gradient(mean_gmacs)
      mean_kept = totals["kept"]
    target = self.target_gmacs if target_gmacs is None else target_gmacs
    batch = Batch(targets, teacher, mean, mean_gmacs, mean_kept, target, self.criterion)
    total, terms = self._sum(model.arch, outputs, batch)
    return total, (terms | {"gmacs": mean_gmacs}, outputs)

  def _sum(self, arch, outputs, batch):
    """The () total and the {term: ()} of a forward pass."""
    prunes = batch.teacher is not None
    terms = {
      name: LOSSES[name](outputs, batch) for name in LOSSES if LOSSES[name].applies(arch, prunes)
    }
    weights = WEIGHTS | dict(self.weights)
    return sum(weights.get(name, 0.0) * term for name, term in terms.items()), terms

  def measure(self, model, images):
    """GMACs, and patches that the last stage keeps: {"gmacs": (b,), "kept": (b,)} per image."""
    outputs = masked(model, images)
    return {"gmacs": gmacs(model.arch, outputs.kept), "kept": outputs.kept[:, -1]}
