"""Finds the budget at which a method reaches a speed-up, from a few timings.

The time of a batch, as a share of the dense network's, is nearly linear in the budget: a constant
cost of the method, and the remaining GMACs. So the next budget to try lies on the line through the
two timings around the wanted one (regula falsi).
"""

import bisect
import dataclasses

TOLERANCE = 0.02  # relative error of a speed-up that counts as met
TRIES = 6  # most timings for one speed-up
_NARROW = 1e-3  # share of the dense GMACs: the search does not go between budgets as near as this
_STEP = 0.01  # share of the dense GMACs: least step beyond the timed budgets
_DIGITS = 4  # decimals of a budget


@dataclasses.dataclass(frozen=True)
class Found:
  """The result of a search.

  Attributes:
    budget: the timed budget whose speed-up is nearest to the asked one, a share of the dense GMACs.
    speedup: its speed-up, times the dense network's speed.
    why: the reason, in words, if the speed-up is not within `TOLERANCE` of the asked one; else "".
    most: whether the asked speed-up is beyond reach, and this is the method's highest.
  """

  budget: float
  speedup: float
  why: str = ""
  most: bool = False


def solve(asked, known, measure, least):
  """Searches for the budget of a speed-up.

  Args:
    asked: the speed-up, times the dense network's speed, above 1.
    known: {budget: speed-up} of earlier timings; new ones are added to it.
    measure: function of a budget that returns (speed-up, whether it had to be timed).
    least: the least budget that the method can meet, with at most four decimals.

  Returns:
    `Found`.
  """
  tries = 0
  while not (near := _nearest(asked, known)) or abs(near[1] / asked - 1) > TOLERANCE:
    budget = _next(asked, known, least)
    if budget is None or tries == TRIES:
      return _missed(asked, known, near, least, budget is not None)
    known[budget], timed = measure(budget)
    tries += timed
  return Found(*near)


def _nearest(asked, known):
  """(budget, speed-up) of the timing nearest to a speed-up; None if nothing was timed."""
  return min(known.items(), key=lambda item: (abs(item[1] / asked - 1), item), default=None)


def _missed(asked, known, near, least, gave_up):
  """The `Found` of a search without a timing within `TOLERANCE`."""
  budget, speedup = max(known.items(), key=lambda item: item[1])
  if speedup < asked and least in known:
    return Found(budget, speedup, f"at most {speedup:.2f}, at {budget:g} of the GMACs", True)
  why = f"after {TRIES} timings" if gave_up else "and no budget is left between the timed ones"
  return Found(*near, f"{near[1]:.2f} is the nearest, {why}")


def _next(asked, known, least):
  """The budget to try next, between the timings around the wanted one; None if none is left."""
  wanted = 1 / asked  # time as a share of the dense network's
  if not known:
    return round(max(wanted, least), _DIGITS)
  budgets, times = monotone({budget: 1 / speedup for budget, speedup in known.items()})
  place = bisect.bisect_left(times, wanted)
  if place == 0:  # all timed budgets are too slow
    low, high = least, budgets[0] - _STEP
    guess = budgets[0] - (times[0] - wanted) / _slope(budgets, times)
    end = least
  elif place == len(times):
    low, high = budgets[-1] + _STEP, 1.0
    guess = budgets[-1] + (wanted - times[-1]) / _slope(budgets, times)
    end = 1.0
  else:
    (left, right), (fast, slow) = budgets[place - 1 : place + 1], times[place - 1 : place + 1]
    margin = (right - left) / 10  # so that the interval shrinks from both ends
    low, high, end = left + margin, right - margin, None
    guess = left + (right - left) * (wanted - fast) / (slow - fast)
    if right - left < _NARROW:
      return None
  budget = end if low > high else round(min(max(guess, low), high), _DIGITS)
  return None if budget in known else budget


def _slope(budgets, times):
  """Growth of time with the budget, over the whole range of timings, where noise weighs least."""
  if len(budgets) < 2:
    return 1.0  # as the GMACs grow
  return min(max((times[-1] - times[0]) / (budgets[-1] - budgets[0]), 0.5), 2.0)


def monotone(times):
  """The nearest times that do not fall as the budget grows (isotonic regression).

  Args:
    times: {budget: time}; noise may have reversed the order of some.

  Returns:
    Two lists: the budgets in ascending order, and their times.
  """
  budgets, groups = sorted(times), []
  for budget in budgets:
    groups.append([times[budget]])
    while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
      last = groups.pop()
      groups[-1] += last
  return budgets, [_mean(group) for group in groups for _ in group]


def _mean(values):
  return sum(values) / len(values)
