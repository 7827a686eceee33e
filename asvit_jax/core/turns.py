"""Timing of several functions in turn, so that a drifting machine affects all alike.

Also chooses the images to time on, as the cost of some functions depends on the images.
"""

import time

import numpy as np

from asvit_jax.core.progress import Progress


def representative(costs, count):
  """Chooses images to time on: those at evenly spaced quantiles of the costs of all images.

  Args:
    costs: (images,) cost of each image.
    count: number to choose; if there are fewer images, some are repeated.

  Returns:
    (count,) int indices, ascending.
  """
  ranks = np.floor((np.arange(count) + 0.5) / count * len(costs)).astype(int)
  return np.sort(np.argsort(costs, kind="stable")[ranks])


def in_turn(calls, rounds):
  """Times functions without arguments, one after the other in every round.

  Args:
    calls: {name: function}, each already called once.
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
