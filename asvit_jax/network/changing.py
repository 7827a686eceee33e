"""Methods that return a changed network: other parameters, thresholds, counts, or a budget."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from asvit_jax import vit
from asvit_jax.config import options
from asvit_jax.core.errors import InputError
from asvit_jax.network import calibrating, checking
from asvit_jax.pacing import speeds
from asvit_jax.sparsity import complexity, schedule
from asvit_jax.weights import texts as weights_texts


class Changing:
  """The methods of `Network` that return a copy with changed fields."""

  @property
  def dense(self):
    """The same network without thresholds."""
    dense = self.with_params(vit.without_thresholds(self.params))
    return dataclasses.replace(dense, budgets=(), counts=(), speedups=())

  def with_params(self, params):
    """The same network with other parameters.

    Args:
      params: nested dictionary of arrays like `Network.params`, with or without thresholds.

    Raises:
      InputError: missing or unknown leaves, or leaves of other shapes.
    """
    checking.check_params(self.arch, params, self.budgets)
    return dataclasses.replace(self, params=params)

  def with_thresholds(self, thresholds, budgets=(), counts=()):
    """The same network with other thresholds.

    Args:
      thresholds: (stages,), or (budgets, stages).
      budgets: the shares of the dense GMACs, one for each of several rows.
      counts: as for `with_counts`; unknown by default, as the old counts belong to the old
        thresholds.

    Raises:
      InputError: a number of thresholds that does not match the stages or budgets, or invalid
        values.
    """
    thresholds, budgets = checking.thresholds_of(self.arch, thresholds, budgets)
    params = self.params | {"thresholds": thresholds}
    return dataclasses.replace(self, params=params, budgets=budgets, counts=counts, speedups=())

  def with_counts(self, counts):
    """The same network with other numbers of patches to keep in fixed execution.

    It has no `speedups`, as these hold for their own counts.

    Args:
      counts: (stages,) integers, or one row of them for each of `budgets`; () for none.

    Raises:
      InputError: invalid counts, more patches than an earlier stage keeps, or a network without
        thresholds.
    """
    network = dataclasses.replace(self, counts=counts, speedups=())
    if network.counts and not self.prunes:
      raise InputError(
        "counts for a network without thresholds, which runs dense: set thresholds first, with "
        "--calibrate BUDGET (`Network.calibrate`)"
      )
    return network

  def mean_counts(self, images):
    """The rounded mean number of patches that the thresholds keep at each stage.

    Args:
      images: as for `calibrate`.

    Returns:
      Counts for `with_counts`: one row for each of `budgets`, or a single row.

    Raises:
      InputError: invalid images, or a network without thresholds.
    """
    checking.check_not_traced("Network.mean_counts")
    return calibrating.count_kept(self, images)

  def at(self, budget):
    """The same network with the thresholds of one budget, interpolated between its rows.

    Args:
      budget: share of the dense GMACs, between the smallest and the largest of `budgets`. It may be
        traced; gradients then reach all rows of thresholds, its bounds are not checked, and the
        network has no counts, which are static: fixed execution needs `with_counts`.

    Raises:
      InputError: a budget outside of this range, or a network calibrated for one budget only.
    """
    traced = isinstance(budget, jax.core.Tracer)
    if not traced:
      budget = complexity.share(budget)
      complexity.check_share(budget)
    if not self.budgets:
      asked = "a budget" if traced else f"budget {budget:g}"
      if not self.prunes:
        raise InputError(
          f"{asked}: the network is dense and has no thresholds to reach a budget with: set them "
          "with evaluate.py --calibrate BUDGET (`Network.calibrate`), or leave out the budget"
        )
      raise InputError(
        f"{asked}: the network has thresholds for several budgets only where it was "
        "calibrated for several, with --calibrate BUDGET,BUDGET,… (`Network.calibrate`): leave out "
        "the budget to run at its own"
      )
    if not traced:
      schedule.check_in_range(self.budgets, budget)
    thresholds = schedule.thresholds_at(self.params["thresholds"], self.budgets, budget)
    known = self.counts and not traced
    return self.with_thresholds(
      thresholds, counts=schedule.counts_at(self.counts, self.budgets, budget) if known else ()
    )

  def at_speedup(self, speedup):
    """As `at`, with the thresholds of one of the speed-ups in `speedups`.

    Raises:
      InputError: a speed-up that the network was not calibrated for.
    """
    (asked,) = speeds.asked((speedup,))
    found = [speed for speed in self.speedups if speed.asked == asked]
    if not found:
      known = ", ".join(f"{speed.asked:g}" for speed in self.speedups)
      said = f"the network was calibrated for {known}: give one of these, or calibrate"
      if not known:
        said = (
          "the network was calibrated for none, or its images are of another size now: calibrate it"
        )
      raise InputError(f"speed-up {asked:g}: {said} with --calibrate-speedup (`Network.calibrate`)")
    one = self.at(found[0].budget) if self.budgets else self
    return dataclasses.replace(one, speedups=(found[0],))

  def for_execution(self, execution):
    """The same network as an execution runs it; calls do so themselves.

    It is without the fields that the execution does not read, `speedups` and `counts`, so that
    networks that differ only in these share compiled programs. Fixed execution runs with the
    counts, and packed and flat compile widths near them, so all three compile again `at` another
    budget; packed and flat do not for networks `with_counts(())`.

    The matrices of its blocks have the compute type, to which every pass would round them. For
    functions of your own under `jax.jit`, call this method outside, once, and pass its result; it
    gives the same numbers. It is not for training, and `save` refuses a bfloat16 one.
    """
    counts = self.counts if execution in ("fixed", "packed", "flat") else ()
    params = self._rounded
    if params is self.params and (self.counts, self.speedups) == (counts, ()):
      return self
    return dataclasses.replace(self, params=params, counts=counts, speedups=())

  @functools.cached_property
  def _rounded(self):
    """The parameters as the blocks compute with them."""
    checking.check_params(self.arch, self.params, self.budgets)
    return vit.rounded(self.params, self.dtype)

  def zero_shot(self, texts):
    """The same network with classes that are described by texts, as CLIP and SigLIP classify.

    Its head gives features of the image, whose cosines with the features of the texts become the
    logits. Other texts can replace them.

    Args:
      texts: path of an .npz file, or a dictionary of arrays, see `weights.texts.of`.

    Raises:
      InputError: a file or arrays of another form, features of another width than this network's,
        or a network with a classifier.
    """
    texts = weights_texts.of(texts)
    weights_texts.check_features(self.arch.head, "the network")
    if texts.width != self.arch.features:
      raise InputError(
        f"{texts.source} has features of width {texts.width}, but the network's have width "
        f"{self.arch.features}: make them with the text tower of the same model"
      )
    arch = dataclasses.replace(self.arch, classes=len(texts.names), text_width=texts.width)
    params = self.params | {"text_head": jax.tree.map(jnp.asarray, texts.params)}
    return dataclasses.replace(self, arch=arch, params=params, classes=texts.names)

  def merging(self):
    """The same network, configured to merge tokens, with the recipes' stages and score.

    Raises:
      InputError: the network has thresholds, which belong to its own stages.
    """
    if self.prunes:
      raise InputError(
        "the network has thresholds, which belong to its own stages: use `.dense.merging()`, and "
        "calibrate it"
      )
    return dataclasses.replace(
      self, arch=dataclasses.replace(self.arch, **options.merging(self.arch.depth))
    )
