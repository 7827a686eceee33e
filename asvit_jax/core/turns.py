"""Times of several functions, measured in turn, so that a machine that drifts is fair to all.

And on which images: what they cost decides what some of these functions take.
"""

import time

import numpy as np

from asvit_jax.core.progress import Progress


def representative(costs, count):
  """Which images to time on: those whose costs are evenly spaced quantiles of the costs of all.

  Args:
    costs: (images,) of each.
    count: number to choose; where there are fewer, some come again.

  Returns:
    (count,) int array, ascending.
  """
  ranks = np.floor((np.arange(count) + 0.5) / count * len(costs)).astype(int)
  return np.sort(np.argsort(costs, kind="stable")[ranks])


def in_turn(calls, rounds):
  """Times functions of nothing, one after the other in every round.

  Args:
    calls: {name: function}, each called once before.
    rounds: number of times that each is timed.

  Returns:
    {name: list of seconds}.
  """
  seconds = {name: [] for name in calls}
  progress = Progress("timing, rounds", rounds)
  for done in range(rounds):
    for name, call in calls.items():
      start = time.perf_counter()
      call()
      seconds[name].append(time.perf_counter() - start)
    progress.update(done + 1)
  return seconds
