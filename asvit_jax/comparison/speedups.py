"""Methods at the same measured speed: searches for the budgets at which they reach it."""

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
  """A search for the budgets of speed-ups; `run` does it for one method.

  Attributes:
    timer: the `Timer`, which times a contender in turn with the dense network.
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
    """Searches for the budgets of one method.

    Args:
      contender: a `Contender` of the method, at any budget.
      speedups: times the dense network's speed, each above 1.

    Returns:
      Two lists. The first has the `Contender`s found, calibrated, with their `asked_speedup`: the
      nearest if none is within `solving.TOLERANCE`, but none for a speed-up beyond reach. The
      second has a dictionary for every speed-up that was not met within the tolerance: `method`,
      `asked_speedup`, `nearest_speedup`, whether it is `compared`, and `said`, the message.
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
  """The timings and thresholds of one method at the budgets tried so far."""

  def __init__(self, search, contender):
    self._search, self._first = search, contender
    self._calibrator = None
    self._speedups = {}  # {counts: speed-up} of a method with fixed counts
    self._thresholds = {}  # {budget: thresholds} of an adaptive method

  def speedup(self, budget):
    """(speed-up at a budget, times the dense network's speed; whether it had to be timed)."""
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
    """The calibrated `Contender` at a budget.

    All budgets share one calibrator, so the blocks before the first stage run once.
    """
    contender = self._first.at(budget)
    if not contender.method.adaptive:
      return contender
    if budget not in self._thresholds:
      if self._calibrator is None:
        self._calibrator = contender.network.calibrator(self._search.batches())
      self._thresholds[budget] = self._calibrator.thresholds(budget).thresholds
    return contender.with_network(contender.network.with_thresholds(self._thresholds[budget]))


def _needed(contender):
  """The keys that the record of a timing must have."""
  return {"speedup", "thresholds"} if contender.method.adaptive else {"speedup"}


def least_budget(contender):
  """The least budget that a method can meet, rounded up to four decimals.

  Args:
    contender: a `Contender` of the method, at any budget.
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
