"""Times of several functions, measured in turn, so that a machine that drifts is fair to all."""

import time

from asvit_jax.core.progress import Progress


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
