"""Which evaluated weights of a run are the best, and whether its budget is met.

Top-1 alone would prefer what prunes least: first come those that meet the budget, by top-1, and
then the others, by how near they are to it.
"""

import dataclasses
from typing import Any

from asvit_jax.run import metrics

EMA, RAW = "ema", "raw"  # averaged weights, and those of the last step as they are
NAMES = {EMA: "averaged weights", RAW: "raw weights"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What a run measured of its weights at a step.

  Attributes:
    step: after which.
    weights: `EMA` or `RAW`.
    rank: see `rank`.
    result: a line of the metrics, see `evaluation.accuracy.evaluate`.
  """

  step: int
  weights: str
  rank: float
  result: dict[str, Any]


def kinds(plan):
  """{kind of a line of the metrics: the weights that it is about}."""
  return {"eval": EMA, "eval_raw": RAW} if plan.ema_decay else {"eval": RAW}


def evaluations(lines, plan):
  """The `Evaluation`s among the lines of the metrics of a run of that `Plan`, in their order."""
  about = kinds(plan)
  return [
    Evaluation(line["step"], about[line["kind"]], rank(line, plan), line)
    for line in lines
    if line["kind"] in about
  ]


def of_run(workdir, plan):
  """The `Evaluation`s of a run; [] where it has none yet."""
  if not metrics.metrics_path(workdir).exists():
    return []
  return evaluations(metrics.read(workdir), plan)


def best(found):
  """The best of `Evaluation`s, one or more; the later one of equals."""
  return max(found, key=lambda evaluation: (evaluation.rank, evaluation.step))


def rank(result, plan):
  """A number, the higher the better: top-1 in percent; less than 0 where the budget is missed."""
  if plan.budget is None or meets(result, plan.budget, plan):
    return float(result["top1"])
  return -abs(result["share"] / plan.budget - 1)


def meets(result, target, plan):
  """Whether the cost of a result is within `budget_tolerance` of a target share."""
  return abs(result["share"] / target - 1) <= plan.budget_tolerance


def describe(evaluation):
  """An `Evaluation` in words."""
  result = evaluation.result
  return (
    f"step {evaluation.step}, {NAMES[evaluation.weights]}, top-1 {result['top1']:.2f} at "
    f"{result['share']:.3f} of the dense GMACs"
  )


def verdict(result, target, plan, flag):
  """Whether a result meets a target, with what to do where it does not.

  Args:
    result: see `Evaluation`.
    target: share of the dense GMACs.
    plan: a `Plan`.
    flag: that leads a tool to what was evaluated, "--workdir runs/a".

  Returns:
    A line.
  """
  said = f"target {target:g} of the dense GMACs, reached {result['share']:.3f}"
  if meets(result, target, plan):
    return f"budget met: {said}"
  more = "more" if result["share"] > target else "less"
  calibrate = f"--calibrate {target:g} --calibrate-split {plan.data.train_split}"
  return (
    f"BUDGET MISSED, {more} than asked for is computed: {said}; set the thresholds anew, without "
    f"training: evaluate.py {flag} {calibrate} --save-weights FILE; or train on (the same command "
    "with a larger --config.total_steps), or in another run raise --config.loss.budget"
  )
