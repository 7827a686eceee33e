"""Ranks the evaluated weights of a run, and checks its budget.

Top-1 alone would prefer the weights that prune least. So weights that meet the budget rank first,
by top-1; the others rank below, by their distance from the budget.
"""

import dataclasses
from typing import Any

from asvit_jax.run import metrics

EMA, RAW = "ema", "raw"  # averaged weights, and those of the last step without averaging
NAMES = {EMA: "averaged weights", RAW: "raw weights"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One evaluation of a run.

  Attributes:
    step: the step after which the weights were evaluated.
    weights: `EMA` or `RAW`.
    rank: see `rank`.
    result: the line of the metrics, see `evaluation.accuracy.evaluate`.
  """

  step: int
  weights: str
  rank: float
  result: dict[str, Any]


def kinds(plan):
  """{kind of a line of the metrics: `EMA` or `RAW`}."""
  return {"eval": EMA, "eval_raw": RAW} if plan.ema_decay else {"eval": RAW}


def evaluations(lines, plan):
  """The `Evaluation`s among the metrics' lines of a run, in order.

  Args:
    lines: lines of `metrics.read`.
    plan: `Plan` of the run.
  """
  about = kinds(plan)
  return [
    Evaluation(line["step"], about[line["kind"]], rank(line, plan), line)
    for line in lines
    if line["kind"] in about
  ]


def of_run(workdir, plan):
  """The `Evaluation`s of a run; [] if it has none yet."""
  if not metrics.metrics_path(workdir).exists():
    return []
  return evaluations(metrics.read(workdir), plan)


def best(found):
  """The best of one or more `Evaluation`s; of equal ones the latest."""
  return max(found, key=lambda evaluation: (evaluation.rank, evaluation.step))


def rank(result, plan):
  """The rank of a result, higher is better: top-1 in percent; below 0 if the budget is missed."""
  if plan.budget is None or meets(result, plan.budget, plan):
    return float(result["top1"])
  return -abs(result["share"] / plan.budget - 1)


def meets(result, target, plan):
  """Whether a result's share of the dense GMACs is within `budget_tolerance` of a target."""
  return abs(result["share"] / target - 1) <= plan.budget_tolerance


def describe(evaluation):
  """A text about an `Evaluation`."""
  result = evaluation.result
  return (
    f"step {evaluation.step}, {NAMES[evaluation.weights]}, top-1 {result['top1']:.2f} at "
    f"{result['share']:.3f} of the dense GMACs"
  )


def verdict(result, target, plan, flag):
  """One line about whether a result meets a target, with advice if it does not.

  Args:
    result: see `Evaluation`.
    target: share of the dense GMACs.
    plan: a `Plan`.
    flag: the flag that gives a tool these weights, such as "--workdir runs/a".
  """
  said = f"target {target:g} of the dense GMACs, reached {result['share']:.3f}"
  if meets(result, target, plan):
    return f"budget met: {said}"
  more = "more" if result["share"] > target else "less"
  calibrate = f"--calibrate {target:g} --calibrate-split {plan.data.train_split}"
  return (
    f"BUDGET MISSED, {more} compute than requested: {said}; set new thresholds without training: "
    f"evaluate.py {flag} {calibrate} --save-weights FILE; or train longer (the same command with a "
    "larger --config.total_steps), or raise --config.loss.budget in another run"
  )
