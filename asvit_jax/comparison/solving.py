"""The budget at which a method is so many times as fast as the dense network, from a few timings.

What a batch takes, as a share of what it takes the dense network, grows nearly as a straight line
with the budget: what the method itself costs, and the GMACs that are left. So the next budget to
try lies on the line through the two timings around the one that is wanted (regula falsi).
"""

import bisect
import dataclasses

TOLERANCE = 0.02  # of the speed-up that is asked for
TRIES = 6  # timings for one speed-up, at most
_NARROW = 1e-3  # of the dense GMACs: nearer budgets are not told apart
_STEP = 0.01  # of the dense GMACs, by which a search leaves the budgets that were timed, at least
_DIGITS = 4  # of a budget


@dataclasses.dataclass(frozen=True)
class Found:
  """What a search found.

  Attributes:
    budget: share of the dense GMACs, of those that were timed the one nearest to what was asked.
    speedup: times the dense network's speed, there.
    why: why that is not within `TOLERANCE` of what was asked, words; "" where it is.
    most: whether the method gets no faster than this, whatever the budget.
  """

  budget: float
  speedup: float
  why: str = ""
  most: bool = False


def solve(asked, known, measure, least):
  """Looks for the budget of a speed-up.

  Args:
    asked: times the dense network's speed, above 1.
    known: {budget: speed-up} of what was timed before; what is timed is added.
    measure: function of a budget that returns (speed-up, whether that had to be timed).
    least: the least budget that the method can meet, of at most four decimals.

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
  """(budget, speed-up) of what was timed nearest to a speed-up; None where nothing was."""
  return min(known.items(), key=lambda item: (abs(item[1] / asked - 1), item), default=None)


def _missed(asked, known, near, least, gave_up):
  """`Found` where nothing is near enough."""
  budget, speedup = max(known.items(), key=lambda item: item[1])
  if speedup < asked and least in known:
    return Found(budget, speedup, f"at most {speedup:.2f}, at {budget:g} of the GMACs", True)
  why = f"after {TRIES} timings" if gave_up else "and no budget between those timed is left"
  return Found(*near, f"{near[1]:.2f} is the nearest, {why}")


def _next(asked, known, least):
  """The budget to try next, between those timed around the one wanted; None where there is none."""
  wanted = 1 / asked  # time as a share of the dense network's
  if not known:
    return round(max(wanted, least), _DIGITS)
  budgets, times = monotone({budget: 1 / speedup for budget, speedup in known.items()})
  place = bisect.bisect_left(times, wanted)
  if place == 0:  # all took longer
    low, high = least, budgets[0] - _STEP
    guess = budgets[0] - (times[0] - wanted) / _slope(budgets, times)
    end = least
  elif place == len(times):
    low, high = budgets[-1] + _STEP, 1.0
    guess = budgets[-1] + (wanted - times[-1]) / _slope(budgets, times)
    end = 1.0
  else:
    (left, right), (fast, slow) = budgets[place - 1 : place + 1], times[place - 1 : place + 1]
    margin = (right - left) / 10  # so that both ends come nearer
    low, high, end = left + margin, right - margin, None
    guess = left + (right - left) * (wanted - fast) / (slow - fast)
    if right - left < _NARROW:
      return None
  budget = end if low > high else round(min(max(guess, low), high), _DIGITS)
  return None if budget in known else budget


def _slope(budgets, times):
  """How time grows with the budget, over all timings: so noise counts least; of one as GMACs do."""
  if len(budgets) < 2:
    return 1.0
  return min(max((times[-1] - times[0]) / (budgets[-1] - budgets[0]), 0.5), 2.0)


def monotone(times):
  """Times that grow with the budget, as near to those measured as can be (isotonic regression).

  Args:
    times: {budget: time}, in which noise may have turned some around.

  Returns:
    Budgets in ascending order, and their times, two lists.
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
