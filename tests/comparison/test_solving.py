"""The budget of a speed-up is found on a clock that is known, in few timings."""

import itertools
import math

import numpy as np
import pytest

from asvit_jax.comparison.solving import TOLERANCE, TRIES, monotone, solve


class Clock:
  """Counts what is timed; `time` is a function of a budget, as a share of the dense time."""

  def __init__(self, time, grain=0.0):
    self.time, self.grain, self.timed = time, grain, {}

  def __call__(self, budget):
    at = math.floor(budget / self.grain + 0.5) * self.grain if self.grain else budget
    new = at not in self.timed
    self.timed.setdefault(at, 1 / self.time(at))
    return self.timed[at], new


TIMES = {
  "as the GMACs": lambda b: b,
  "overhead": lambda b: 0.12 + 0.95 * b,
  "fixed cost": lambda b: 0.25 + 0.75 * b,
  "bent": lambda b: 0.1 + 0.4 * b + 0.5 * b**2,
  "steps": lambda b: 0.1 + 0.9 * math.ceil(40 * b) / 40,
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("asked", [1.2, 1.5, 2.2])
def test_few_timings_find_the_budget(name, asked):
  clock = Clock(TIMES[name])
  found = solve(asked, {}, clock, 0.05)
  assert found.why == "" and not found.most
  assert found.speedup == pytest.approx(asked, rel=TOLERANCE)
  assert found.speedup == 1 / TIMES[name](found.budget)
  assert len(clock.timed) <= 4


def test_what_was_timed_for_one_speed_up_serves_the_others():
  clock, known = Clock(TIMES["bent"]), {}
  counts = []
  for asked in (1.3, 1.5, 1.8, 2.2):
    assert solve(asked, known, clock, 0.05).why == ""
    counts.append(len(clock.timed))
  assert len(known) == counts[-1] <= 8
  assert solve(1.5, known, None, 0.05) == solve(1.5, known, None, 0.05)  # nothing is timed again


def test_where_the_least_budget_is_too_slow_it_is_said_how_fast_that_is():
  clock = Clock(lambda b: 0.5 + 0.5 * b)
  found = solve(2.2, {}, clock, 0.1)
  assert found.most
  assert (found.budget, found.speedup) == (0.1, 1 / 0.55)
  assert found.why == "at most 1.82, at 0.1 of the GMACs"
  assert min(clock.timed) == 0.1
  known = dict(clock.timed)
  assert solve(2.5, known, None, 0.1).most  # known, not timed again


def test_the_nearest_is_taken_where_no_number_of_tokens_is_near_enough():
  clock = Clock(lambda b: b, grain=0.1)
  found = solve(1.54, {}, clock, 0.1)  # between 1 / 0.6 and 1 / 0.7
  assert abs(found.speedup / 1.54 - 1) == pytest.approx(
    min(abs(1 / (grain / 10) / 1.54 - 1) for grain in range(1, 11))
  )
  assert not found.most
  assert found.why.endswith("is the nearest, and no budget is left between the timed ones")
  assert len(clock.timed) <= TRIES


def test_a_noisy_clock_ends():
  rng = np.random.default_rng(0)
  for asked, noise in itertools.product((1.3, 1.8), (0.01, 0.1, 0.5)):
    timed = []

    def measure(budget, noise=noise, timed=timed):
      timed.append(budget)
      return float(np.exp(noise * rng.standard_normal()) / (0.1 + 0.9 * budget)), True

    found = solve(asked, {}, measure, 0.05)
    assert len(timed) == len(set(timed)) <= TRIES
    assert all(0.05 <= budget <= 1 for budget in timed)
    assert found.budget in timed
    assert (found.why == "") == (abs(found.speedup / asked - 1) <= TOLERANCE)


def test_a_method_that_is_fast_at_any_budget_is_taken_at_its_slowest():
  found = solve(1.05, {}, Clock(lambda b: 0.4 + 0.4 * b), 0.1)
  assert (found.budget, found.most) == (1.0, False)
  assert found.why.startswith("1.25 is the nearest")


def test_times_that_turn_around_are_averaged():
  assert monotone({0.2: 0.3, 0.6: 0.5, 0.4: 0.7, 0.8: 0.9}) == (
    [0.2, 0.4, 0.6, 0.8],
    [0.3, 0.6, 0.6, 0.9],
  )
