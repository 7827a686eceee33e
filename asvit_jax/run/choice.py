"""Chooses the weights of a run: the step, and averaged or raw."""

from asvit_jax.core import hosts
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.run import ranking

BEST, LATEST = "best", "latest"
WEIGHTS = (ranking.EMA, ranking.RAW, BEST, LATEST)


def check(step, weights):
  """Raises InputError for a step or weights that no run can have.

  Args:
    step: "latest" or "" for the last step, "best" for the best evaluated one, or a number, also as
      text.
    weights: "ema" for the averaged weights, "raw" for the unaveraged ones, or "best" for the better
      of the two (without `step`: at the best step). "" or "latest" takes the averaged weights if
      the run has any; with step "best", "" means "best".
  """
  step = str(step)
  if step not in ("", BEST, LATEST) and not step.isdecimal():
    raise InputError(
      f"step {step!r} is not known: expected {LATEST}, {BEST} or the number of a step"
      f"{hint(step, (LATEST, BEST))}"
    )
  if weights not in ("", *WEIGHTS):
    raise InputError(
      f"weights_of {weights!r} is not known: choose from {', '.join(WEIGHTS)}"
      f"{hint(weights, WEIGHTS)}"
    )
  if weights == LATEST and step not in ("", LATEST):
    raise InputError(f"weights_of latest and step {step} contradict each other: give one of them")


def choose(workdir, plan, steps, step="", weights=""):
  """Finds the requested weights of a run, and logs which they are.

  Args:
    workdir: directory of the run.
    plan: `Plan` of the run.
    steps: the numbers of its saved steps, in order.
    step: see `check`.
    weights: see `check`.

  Returns:
    The step, or None for the latest one that is not damaged; and `ranking.EMA` or `ranking.RAW`.

  Raises:
    InputError: the run does not have these weights.
  """
  check(step, weights)
  step, averages = str(step), bool(plan.ema_decay)
  if weights == ranking.EMA and not averages:
    raise InputError(f"{workdir} has no averaged weights, as its ema_decay is 0: use the raw ones")
  found = [e for e in ranking.of_run(workdir, plan) if e.step in steps]
  if step == BEST or (weights == BEST and not step):
    kinds = (weights,) if weights in (ranking.EMA, ranking.RAW) else (ranking.EMA, ranking.RAW)
    return _best(workdir, [e for e in found if e.weights in kinds])
  number = None if step in ("", LATEST) else int(step)
  if number is not None and number not in steps:
    raise InputError(
      f"{workdir} has no step {number}: saved are {', '.join(map(str, steps))}; the latest two and "
      "the best are kept"
    )
  at = [e for e in found if e.step == (steps[-1] if number is None else number)]
  if weights == BEST:
    return _best(workdir, at)
  chosen = (
    weights if weights in (ranking.EMA, ranking.RAW) else (ranking.RAW, ranking.EMA)[averages]
  )
  _say(workdir, steps[-1] if number is None else number, chosen, at, asked=weights)
  return number, chosen


def _best(workdir, found):
  if not found:
    raise InputError(
      f"{workdir} has no evaluated step, so none is the best: use step latest, or let train.py "
      "reach its first evaluation (eval.every)"
    )
  best = ranking.best(found)
  hosts.log_first(f"weights of {workdir}: {ranking.describe(best)}")
  return best.step, best.weights


def _say(workdir, step, chosen, at, asked):
  """Logs the chosen weights; also if the other ones scored higher and the user did not choose."""
  line = f"weights of {workdir}: step {step}, {ranking.NAMES[chosen]}"
  best = ranking.best(at) if at else None
  if best is not None and best.weights != chosen and not asked:
    line += f"; better at this step: --weights-of {best.weights} ({ranking.describe(best)})"
  hosts.log_first(line)
