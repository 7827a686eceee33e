"""Every method at the same measured time: the budget at which it is so many times as fast."""

import dataclasses
from collections.abc import Callable
from typing import Any

from asvit_jax.comparison.contenders import Contender
from asvit_jax.comparison.records import Records
from asvit_jax.comparison.solving import solve
from asvit_jax.comparison.timing import Timer
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log


@dataclasses.dataclass(frozen=True)
class Search:
  """The settings of a search for budgets that reach speed-ups, for `run`.

  Attributes:
    timer: times a contender beside the dense network.
    records: records of the comparison; timings and calibrations found in them are not repeated.
    settings: function of a `Contender` that returns the settings its timing depends on, for JSON.
    batches: function without arguments that returns the images to calibrate on.
    rounds: number of times that each contender is timed.
  """

  timer: Timer
  records: Records
  settings: Callable[[Contender], dict]
  batches: Callable[[], Any]
  rounds: int

  def run(self, contender, speedups):
    """Looks for the budgets of one method.

    Args:
      contender: a `Contender` of the method, at any budget.
      speedups: times the dense network's speed, each above 1.

    Returns:
      The `Contender`s found, calibrated, each with its `asked_speedup`, nearest where it is not
      within `solving.TOLERANCE`; and for all speed-ups that were not met so, dictionaries of
      `method`, `asked_speedup`, `nearest_speedup`, whether it is `compared`, and `said`, a line.
    """
    tries = _Tries(self, contender)
    least = least_budget(contender)
    known, found, missed = {}, [], []
    for asked in sorted(speedups):
      result = solve(asked, known, tries.speedup, least)
      log(
        f"{contender.name} at {asked:g} times dense: budget {result.budget:g}, measured "
        f"{result.speedup:.2f}"
      )
      if not result.most:
        solved = tries.contender(result.budget)
        found.append(dataclasses.replace(solved, asked_speedup=asked))
      if result.why:
        said = (
          f"{contender.name} cannot {'reach' if result.most else 'meet'} {asked:g}: {result.why}"
        )
        log(said)
        missed.append(
          {
            "method": contender.name,
            "asked_speedup": asked,
            "nearest_speedup": result.speedup,
            "compared": not result.most,
            "said": said,
          }
        )
    return found, missed


class _Tries:
  """What is known of one method at the budgets that were tried."""

  def __init__(self, search, contender):
    self._search, self._first = search, contender
    self._calibrator = None
    self._speedups = {}  # {counts: speed-up}, of fixed ones
    self._thresholds = {}  # {budget: those}

  def speedup(self, budget):
    """(times the dense network's speed, whether that had to be timed)."""
    contender = self._first.at(budget)
    if contender.counts and contender.counts in self._speedups:
      return self._speedups[contender.counts], False
    search, name = self._search, f"try-{contender.name}-{budget:g}"
    settings = search.settings(contender)
    result = search.records.find(name, settings)
    if result is None or not _needed(contender) <= result.keys():
      contender = self.contender(budget)
      result = search.timer.time([contender], search.rounds)[contender.name] | contender.describe()
      search.records.add(name, settings, result)
    if contender.method.adaptive:
      self._thresholds[budget] = result["thresholds"]
    log(f"{contender.title}: {result['speedup']:.3f} times dense")
    self._speedups[contender.counts] = result["speedup"]
    return result["speedup"], True

  def contender(self, budget):
    """That of a budget, calibrated; blocks before the first stage run once for all of them."""
    contender = self._first.at(budget)
    if not contender.method.adaptive:
      return contender
    if budget not in self._thresholds:
      if self._calibrator is None:
        self._calibrator = contender.network.calibrator(self._search.batches())
      self._thresholds[budget] = self._calibrator.thresholds(budget).thresholds
    return contender.with_network(contender.network.with_thresholds(self._thresholds[budget]))


def _needed(contender):
  """Keys of what is kept of a try."""
  return {"speedup", "thresholds"} if contender.method.adaptive else {"speedup"}


def least_budget(contender):
  """The least budget that a method can meet, to four decimals, not below it.

  Args:
    contender: of it, at any budget.
  """
  low, high = 0, 10_000
  while high - low > 1:
    middle = (low + high) // 2
    try:
      contender.at(middle / 10_000)
    except InputError:
      low = middle
    else:
      high = middle
  return high / 10_000
