"""What makes another network of one: other parameters, thresholds, counts, or another budget."""

import dataclasses

import jax

from asvit_jax import vit
from asvit_jax.config import options
from asvit_jax.core.errors import InputError
from asvit_jax.network import checking, counting
from asvit_jax.pacing import speeds
from asvit_jax.sparsity import complexity, dial
from asvit_jax.sparsity.counts import counts_at


class Changing:
  """The methods of `Network` that return the same network with something else in it."""

  @property
  def dense(self):
    """The same network without thresholds."""
    dense = self.with_params(vit.without_thresholds(self.params))
    return dataclasses.replace(dense, budgets=(), counts=(), speedups=())

  def with_params(self, params):
    """The same network with other parameters.

    Args:
      params: nested dictionary of arrays, as `params` is, with thresholds or without.

    Raises:
      InputError: leaves that are missing, of other shapes, or unknown.
    """
    checking.check_params(self.arch, params, self.budgets)
    return dataclasses.replace(self, params=params)

  def with_thresholds(self, thresholds, budgets=(), counts=()):
    """The same network with other thresholds.

    Args:
      thresholds: (stages,), or (budgets, stages).
      budgets: the shares of the dense GMACs that several rows are for.
      counts: as for `with_counts`; not known unless given, as those of other thresholds are others.

    Raises:
      InputError: another number of them than of stages or budgets, or values that are none.
    """
    thresholds, budgets = checking.thresholds_of(self.arch, thresholds, budgets)
    params = self.params | {"thresholds": thresholds}
    return dataclasses.replace(self, params=params, budgets=budgets, counts=counts, speedups=())

  def with_counts(self, counts):
    """The same network with other numbers of patches to keep in fixed execution.

    It is then of no speed-up, as those are of counts of their own.

    Args:
      counts: (stages,) whole numbers, or a row of them for each of `budgets`; () for none.

    Raises:
      InputError: none of these, more than an earlier stage keeps, or a network without thresholds.
    """
    network = dataclasses.replace(self, counts=counts, speedups=())
    if network.counts and not self.prunes:
      raise InputError(
        "counts for a network without thresholds, which runs dense: set thresholds first, with "
        "--calibrate BUDGET (`Network.calibrate`)"
      )
    return network

  def mean_counts(self, images):
    """Patches that each stage keeps of images by the thresholds, in the mean, rounded.

    Args:
      images: as for `calibrate`.

    Returns:
      What `with_counts` takes, a row for each of `budgets`, or one.

    Raises:
      InputError: images that are none, or a network without thresholds.
    """
    checking.check_not_traced("Network.mean_counts")
    return counting.mean_counts(self, images)

  def at(self, budget):
    """The same network with the thresholds of one budget, interpolated between those it has.

    Args:
      budget: share of the dense GMACs, between the least and the greatest of `budgets`. It may be
        traced, and gradients reach all rows of thresholds; then its bounds are not checked, and
        the network has no counts, which are static: fixed execution needs `with_counts`.

    Raises:
      InputError: a budget outside of them, or a network that was not calibrated for several.
    """
    traced = isinstance(budget, jax.core.Tracer)
    if not traced:
      budget = complexity.share(budget)
    if not self.budgets:
      asked = "a budget" if traced else f"budget {budget:g}"
      raise InputError(
        f"{asked}: the network has thresholds for several budgets only where it was "
        "calibrated for several, with --calibrate BUDGET,BUDGET,… (`Network.calibrate`)"
      )
    if not traced:
      dial.check(self.budgets, budget)
    thresholds = dial.thresholds_at(self.params["thresholds"], self.budgets, budget)
    known = self.counts and not traced
    return self.with_thresholds(
      thresholds, counts=counts_at(self.counts, self.budgets, budget) if known else ()
    )

  def at_speedup(self, speedup):
    """As `at`, with the thresholds of one of the speed-ups that it was calibrated for.

    Raises:
      InputError: another.
    """
    (asked,) = speeds.asked((speedup,))
    found = [speed for speed in self.speedups if speed.asked == asked]
    if not found:
      known = ", ".join(f"{speed.asked:g}" for speed in self.speedups)
      said = f"the network was calibrated for {known}: ask for one of these, or calibrate"
      if not known:
        said = "the network was for none, or its images are of another size now: calibrate it"
      raise InputError(f"speed-up {asked:g}: {said} with --calibrate-speedup (`Network.calibrate`)")
    one = self.at(found[0].budget) if self.budgets else self
    return dataclasses.replace(one, speedups=(found[0],))

  def for_execution(self, execution):
    """The same network without what that execution does not read: `speedups`, and `counts`.

    Networks that differ in nothing else then run the same compiled programs: calls do so anyway;
    functions of yours that `jax.jit` compiles do where they are handed this. Fixed execution runs
    with the counts, and for packed they say which widths to compile, so both compile anew `at`
    another budget; packed does not for networks `with_counts(())`, which have all widths.
    """
    counts = self.counts if execution in ("fixed", "packed") else ()
    if (self.counts, self.speedups) == (counts, ()):
      return self
    return dataclasses.replace(self, counts=counts, speedups=())

  def merging(self):
    """The same network, to merge tokens instead of dropping them, where and by what recipes do it.

    Raises:
      InputError: it has thresholds, which are those of its own stages.
    """
    if self.prunes:
      raise InputError(
        "the network has thresholds, which were set for its own stages: take `.dense.merging()`, "
        "and calibrate it"
      )
    return dataclasses.replace(
      self, arch=dataclasses.replace(self.arch, **options.merging(self.arch.depth))
    )
