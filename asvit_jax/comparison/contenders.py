"""Contenders: a method with a network and a budget, which a comparison measures."""

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
from asvit_jax.vit.architecture import stages_within


class Prunings(NamedTuple):
  """The two ways in which a network could prune, as `Architecture`s.

  They differ in how tokens are removed and in nothing else. Every field that says so is set in
  both, so that no method runs with a setting meant for another.

  Attributes:
    paper: with the score, the stages and the reduction of the paper.
    merging: with the score, the stages and the reduction of the merging recipes.
  """

  paper: vit.Architecture
  merging: vit.Architecture

  @classmethod
  def of(cls, network):
    """The `Prunings` of a `Network`.

    The stages of `paper` are those of the published variant, or `stages_of` its depth if the
    network has too few blocks for them. If the network itself merges, `merging` is its own
    architecture, otherwise that of the recipes.
    """
    arch = network.arch
    published = vit.VARIANTS.get(network.variant, arch)
    paper = dataclasses.replace(
      arch,
      score="class_attention",
      score_exponents=(1.0, 1.0),
      reduction="drop",
      prune_before=stages_within(published.prune_before, arch.depth),
      stage_weights=(),
      prune_inside=False,
    )
    if REDUCTIONS[arch.reduction].changes_tokens:
      return cls(paper, arch)
    return cls(paper, dataclasses.replace(paper, **options.merging(arch.depth)))


@dataclasses.dataclass(frozen=True)
class Contender:
  """A method at one budget, with its network; made by `prepare`.

  Attributes:
    name: name of the method in `METHODS`.
    budget: share of the dense GMACs.
    network: the `Network`, with the method's architecture. It has thresholds, which only an
      adaptive method reads.
    counts: the counts that the method solved for the budget, see `methods`.
    asked_speedup: the speed-up over the dense network that the budget was searched for, see
      `speedups`; the thresholds are then calibrated. None if the budget was given.
  """

  name: str
  budget: float
  network: Network
  counts: tuple[int, ...]
  asked_speedup: float | None = None

  @property
  def method(self):
    """The method, an object as described in `methods`."""
    return METHODS[self.name]

  @property
  def title(self):
    """The contender in words, such as "tome at 0.65"."""
    return f"{self.name} at {self.budget:g}"

  @property
  def group(self):
    """The group that it is compared in, see `group_of`."""
    return group_of({"budget": self.budget, "asked_speedup": self.asked_speedup})

  def at(self, budget):
    """The same method at another budget, not calibrated; raises InputError if it cannot meet it."""
    counts = self.method.solve(self.network.arch, budget)
    return dataclasses.replace(self, budget=budget, counts=counts, asked_speedup=None)

  def execution(self):
    """Function of a `Network` and (b, s, s, 3) uint8 images that returns `Outputs`."""
    run = self.method.execution(self.counts)
    return usual(
      lambda network, images: run(network.model, network.preprocessing.normalize(images))
    )

  def calibrated(self, batches):
    """The contender with thresholds calibrated for its budget, if its method is adaptive.

    Args:
      batches: function without arguments that returns the images, as for `Network.calibrate`.
    """
    if not self.method.adaptive:
      return self
    return self.with_network(self.network.calibrate(batches(), self.budget))

  def with_network(self, network):
    """The same contender with another network."""
    return dataclasses.replace(self, network=network)

  def gmacs(self, kept=None):
    """GMACs of images, by the paper's count and as computed.

    Args:
      kept: (images, stages) patches kept; only read for an adaptive method.

    Returns:
      Two float64 arrays, (images,), or () if all images cost the same.
    """
    counts = kept if self.method.adaptive else np.array(self.counts)
    return tuple(np.asarray(self.method.cost(self.network.arch, counts, r)) for r in (False, True))

  def describe(self):
    """Its `thresholds` or its `counts`, a dictionary for JSON."""
    if self.method.adaptive:
      return {"thresholds": np.asarray(self.network.params["thresholds"]).tolist()}
    return {"counts": list(self.counts)}


def group_of(row):
  """The group of measurements that a row is compared in.

  Args:
    row: dictionary of `budget` and, if the budget was searched for, `asked_speedup`.

  Returns:
    ("budget", share of the dense GMACs) or ("speed-up", times the dense network's speed).
  """
  asked = row.get("asked_speedup")
  return ("budget", row["budget"]) if asked is None else ("speed-up", asked)


def prepare(name, budget, dense, prunings):
  """A `Contender` that is not calibrated.

  Args:
    name: name of a method in `METHODS`.
    budget: share of the dense GMACs.
    dense: the `Network`, without thresholds.
    prunings: the `Prunings` of the network.

  Raises:
    InputError: there is no such method, or it cannot meet the budget.
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


def contenders(network, methods, budgets):
  """A `Contender` for every method and budget.

  Args:
    network: a `Network`; its thresholds are not read.
    methods: names in `METHODS`.
    budgets: shares of the dense GMACs.

  Raises:
    InputError: there is no such method, or it cannot meet a budget.
  """
  prunings = Prunings.of(network)
  return [prepare(name, budget, network.dense, prunings) for budget in budgets for name in methods]


def searched(network, methods):
  """A `Contender` for every method, whose budget is to be searched for; it is 1 until then.

  Args:
    network: a `Network`; its thresholds are not read.
    methods: names in `METHODS`.

  Raises:
    InputError: there is no such method.
  """
  return contenders(network, methods, [1.0])
