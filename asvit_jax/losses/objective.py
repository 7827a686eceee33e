"""What training minimises: the weighted sum of the terms that apply."""

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
  """What a term may need to know besides the forward pass.

  Attributes:
    targets: (b, classes) soft labels.
    teacher: `Outputs` of the dense teacher; None for a dense network.
    mean: of a (b,) array over the global batch.
    mean_gmacs: () over the global batch; None for a dense network.
    mean_kept: () patch tokens that the last stage keeps, as above.
    target_gmacs: of the budget, a float or (); None for a dense network.
    criterion: a `Criterion`: how far logits are from targets.
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
  """The weights of the loss terms, and the compute to aim at.

  Attributes:
    weights: {name of a term of `LOSSES`: weight}; those that are not named have their default.
    target_gmacs: None for a dense network.
    temperature: of the gate, see `gates.straight_through_gate`.
    remat: computes blocks again in the backward pass instead of keeping what they computed.
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
      mean: of a (b,) array over the global batch. The budget is about that mean, so with several
        devices it must reach over them before the absolute value is taken.
      totals: `measure` of the whole batch where `images` are a part of it, else None.
      target_gmacs: () to aim at in this step instead of the objective's own, or None.

    Returns:
      () total, and ({term: ()}, `Outputs`); the terms include the mean `gmacs` of a pruned network.
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
    if totals is not None:  # the values of the whole batch, the gradient of this part
      mean_gmacs = totals["gmacs"] + mean_gmacs - jax.lax.stop_gradient(mean_gmacs)
      mean_kept = totals["kept"]
    target = self.target_gmacs if target_gmacs is None else target_gmacs
    batch = Batch(targets, teacher, mean, mean_gmacs, mean_kept, target, self.criterion)
    total, terms = self._sum(model.arch, outputs, batch)
    return total, (terms | {"gmacs": mean_gmacs}, outputs)

  def _sum(self, arch, outputs, batch):
    """() total and {term: ()}."""
    prunes = batch.teacher is not None
    terms = {
      name: LOSSES[name](outputs, batch) for name in LOSSES if LOSSES[name].applies(arch, prunes)
    }
    weights = WEIGHTS | dict(self.weights)
    return sum(weights.get(name, 0.0) * term for name, term in terms.items()), terms

  def measure(self, model, images):
    """What the loss needs to know of a whole batch: {"gmacs": (b,), "kept": (b,)} by image."""
    outputs = masked(model, images)
    return {"gmacs": gmacs(model.arch, outputs.kept), "kept": outputs.kept[:, -1]}
