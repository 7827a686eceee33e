"""A method with a network and a budget: what is measured."""

import dataclasses
from typing import NamedTuple

import numpy as np

from asvit_jax import vit
from asvit_jax.comparison.methods import METHODS
from asvit_jax.config import options
from asvit_jax.core.errors import InputError
from asvit_jax.core.promotion import usual
from asvit_jax.network import Network
from asvit_jax.sparsity.reductions import REDUCTIONS


class Prunings(NamedTuple):
  """How a network could prune: two `Architecture`s that differ in nothing else.

  All that says how tokens go is set in both, so no method has by accident what another is told.

  Attributes:
    paper: by the score, the stages and the reduction of the paper.
    merging: as the recipes merge.
  """

  paper: vit.Architecture
  merging: vit.Architecture

  @classmethod
  def of(cls, network):
    """Those of a `Network`.

    The paper's stages are the variant's. Where it does not drop tokens, it merges as it says
    itself, or else as the recipes do.
    """
    arch = network.arch
    published = vit.VARIANTS.get(network.variant, arch)
    paper = dataclasses.replace(
      arch,
      score="class_attention",
      score_exponents=(1.0, 1.0),
      reduction="drop",
      prune_before=published.prune_before,
      stage_weights=(),
      prune_inside=False,
    )
    if REDUCTIONS[arch.reduction].changes_tokens:
      return cls(paper, arch)
    return cls(paper, dataclasses.replace(paper, **options.merging(arch.depth)))


@dataclasses.dataclass(frozen=True)
class Contender:
  """A method at one budget, with its network, as `prepare` returns it.

  Attributes:
    name: name of the method in `METHODS`.
    budget: share of the dense GMACs that it was solved for.
    network: the `Network`, of the method's architecture. It has thresholds, which only an adaptive
      method reads.
    counts: see `methods`.
    asked_speedup: times the dense network's speed that its budget was searched for, see `speedups`,
      or None. Its thresholds are calibrated then.
  """

  name: str
  budget: float
  network: Network
  counts: tuple[int, ...]
  asked_speedup: float | None = None

  @property
  def method(self):
    """The contender's method, see `methods`."""
    return METHODS[self.name]

  @property
  def title(self):
    """For progress: "tome at 0.65"."""
    return f"{self.name} at {self.budget:g}"

  @property
  def group(self):
    """What it is compared at: the same of those that it is held against; see `group_of`."""
    return group_of({"budget": self.budget, "asked_speedup": self.asked_speedup})

  def at(self, budget):
    """The same method at another budget, not calibrated; raises InputError where it cannot."""
    counts = self.method.solve(self.network.arch, budget)
    return dataclasses.replace(self, budget=budget, counts=counts, asked_speedup=None)

  def execution(self):
    """Function of a `Network` and (b, s, s, 3) uint8 images that returns `Outputs`."""
    run = self.method.execution(self.counts)
    return usual(
      lambda network, images: run(network.model, network.preprocessing.normalize(images))
    )

  def calibrated(self, batches):
    """Itself with thresholds for its budget, where they decide; `batches` as for `calibrate`."""
    if not self.method.adaptive:
      return self
    return self.with_network(self.network.calibrate(batches(), self.budget))

  def with_network(self, network):
    """The same with another network."""
    return dataclasses.replace(self, network=network)

  def gmacs(self, kept=None):
    """GMACs of images, by the paper's count and really.

    Args:
      kept: (images, stages) patches kept, of an adaptive method.

    Returns:
      Two float64 arrays, (images,), or () where all cost the same.
    """
    counts = kept if self.method.adaptive else np.array(self.counts)
    return tuple(np.asarray(self.method.cost(self.network.arch, counts, r)) for r in (False, True))

  def describe(self):
    """What it keeps, for JSON."""
    if self.method.adaptive:
      return {"thresholds": np.asarray(self.network.params["thresholds"]).tolist()}
    return {"counts": list(self.counts)}


def group_of(row):
  """What a measurement is compared at, ("budget", share) or ("speed-up", times dense).

  Args:
    row: dictionary of `budget` and, where that was searched for, `asked_speedup`.
  """
  asked = row.get("asked_speedup")
  return ("budget", row["budget"]) if asked is None else ("speed-up", asked)


def prepare(name, budget, dense, prunings):
  """A `Contender`; its thresholds, where it needs some, are yet to be calibrated.

  Args:
    name: of `METHODS`.
    budget: share of the dense GMACs.
    dense: the `Network`, without thresholds.
    prunings: `Prunings` of it.

  Raises:
    InputError: no such method, or a budget that it cannot meet.
  """
  method = METHODS[name]
  parts = ("adaptive", "architecture", "solve", "cost", "execution", "training")
  missing = [part for part in parts if not hasattr(method, part)]
  if missing:
    raise InputError(
      f"--methods {name!r} is not a method, it has no {' and no '.join(missing)}: see "
      "asvit_jax.comparison.methods"
    )
  arch = method.architecture(*prunings)
  counts = method.solve(arch, budget)
  network = dataclasses.replace(dense, arch=arch).with_thresholds(np.zeros(arch.stages))
  return Contender(name, budget, network, counts)
