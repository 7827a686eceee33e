"""Logging, metrics and evaluations during training; only the first of several hosts writes."""

from asvit_jax.core import exchange, hosts, progress, storage
from asvit_jax.data import sources
from asvit_jax.evaluation import accuracy
from asvit_jax.losses.terms import LOSSES
from asvit_jax.run import metrics, ranking


class Reporter:
  """Writes metrics, on the first host only.

  Args:
    workdir: directory of the run.
    step: the step the run resumes from; 0 for a new run.
    plan: a `Plan`, whose `wandb` may name a project.
    check_lock: function that raises InputError if another run may be writing to the workdir.
  """

  def __init__(self, workdir, step, plan, check_lock):
    self._check_lock = check_lock
    self._metrics = metrics.Metrics(workdir, step, plan) if hosts.is_first() else None

  def write(self, step, kind, values):
    """Writes metrics, see `Metrics.write`; raises InputError once the lock is lost."""
    self._check_lock()
    if self._metrics is not None:
      self._metrics.write(step, kind, values)

  def flush(self):
    """Flushes the metrics, see `Metrics.flush`."""
    if self._metrics is not None:
      self._metrics.flush()

  def close(self):
    """Closes the metrics, see `Metrics.close`."""
    if self._metrics is not None:
      self._metrics.close()


def describe_step(step, steps, rate, values, target_gmacs):
  """One line of progress about a training step.

  Args:
    step: its number.
    steps: number of steps of the whole run.
    rate: steps per second.
    values: its metrics.
    target_gmacs: GMACs per image that the budget allows; None for a dense network.
  """
  terms = " + ".join(f"{name} {values[name]:.4f}" for name in LOSSES if name in values)
  line = f"step {step}/{steps}  loss {values['loss']:.4f} ({terms})"
  if target_gmacs is not None:
    thresholds = " ".join(f"{t:.3g}" for t in values["thresholds"])
    kept = " ".join(f"{k:.1f}" for k in values["kept"])
    line += f"  gmacs {values['gmacs']:.4f}/{target_gmacs:.4f}  kept {kept}"
    line += f"  thresholds {thresholds}"
  eta = progress.duration((steps - step) / rate)
  return line + f"  {values['images_per_s']:.0f} images/s  eta {eta}"


def describe_evaluation(result):
  """One line about a result of `evaluation.accuracy.evaluate`."""
  kept = " ".join(f"{stage['mean']:.1f}" for stage in result["kept"])
  return (
    f"top-1 {result['top1']:.2f}  top-5 {result['top5']:.2f}  gmacs {result['gmacs']:.4f} "
    f"({result['share']:.3f} of dense)" + (f"  kept {kept}" if kept else "")
  )


class Evaluator:
  """Evaluates the averaged weights of a run, and the raw ones, in one pass over the images.

  Args:
    plan: a `Plan`, complete.
    workdir: directory of the run.
    network: the `Network` in training; its parameters are not read.
    source: images to evaluate on.
    reporter: a `Reporter`.
  """

  def __init__(self, plan, workdir, network, source, reporter):
    self._plan, self._workdir, self._network = plan, storage.path(workdir), network
    self._source, self._steps, self._reporter = source, plan.steps, reporter
    found = ranking.of_run(workdir, plan) if hosts.is_first() else []
    found = exchange.gather([(evaluation.step, evaluation.rank) for evaluation in found])[0]
    self._ranks = {}  # {evaluated step: its best rank}, in order
    for evaluated, rank in found:
      self._note(evaluated, rank)

  def _note(self, step, rank):
    self._ranks[step] = max(rank, self._ranks.get(step, rank))

  @property
  def is_exhausted(self):
    """Whether the last `eval.patience` evaluations were no better than an earlier one."""
    patience, ranks = self._plan.eval.patience, list(self._ranks.values())
    return bool(patience and ranks) and len(ranks) - 1 - ranks.index(max(ranks)) >= patience

  def is_due(self, step):
    """Whether a step is to be evaluated: every `eval.every` steps, and the last."""
    return step % self._plan.eval.every == 0 or step == self._steps

  def is_missing(self, step):
    """Whether the run was stopped before it evaluated the step that it resumes from."""
    if step == 0 or not self.is_due(step):
      return False
    lines = metrics.read(self._workdir, "eval") if hosts.is_first() else []
    return hosts.all_true(not hosts.is_first() or step not in [line["step"] for line in lines])

  def __call__(self, state, stopped):
    """Evaluates a `TrainState` and writes the results.

    Args:
      state: the `TrainState`, on the host.
      stopped: function that returns True to abort the evaluation.

    Returns:
      {`ranking.EMA` or `ranking.RAW`: the `ranking.rank` of those weights}; None if `stopped`
      aborted the evaluation.
    """
    step = int(state.step)
    weights = {"eval": state.ema, "eval_raw": state.params} if state.ema else {"eval": state.params}
    execution = "masked" if self._network.prunes else "dense"
    networks = [self._network.with_params(params) for params in weights.values()]
    found = accuracy.evaluate_each(networks, self._plan, self._source, execution, stopped=stopped)
    if found is None:
      return None
    results = dict(zip(weights, found, strict=True))
    about, target = ranking.kinds(self._plan), self._plan.budget
    for kind, result in results.items():
      result |= {} if target is None else {"target": target}
      self._reporter.write(step, kind, result)
      name = ranking.NAMES[about[kind]]
      hosts.log_first(
        f"step {step}/{self._steps}  evaluation, {name}: {describe_evaluation(result)}"
      )
    if self._network.prunes and hosts.is_first() and self._plan.eval.pictures:
      self._draw(step, self._network.with_params(weights["eval"]))
    ranks = {about[kind]: ranking.rank(r, self._plan) for kind, r in results.items()}
    self._note(step, max(ranks.values()))
    return ranks

  def _draw(self, step, network):
    from asvit_jax.report import tokens  # matplotlib takes a second to import

    sample = sources.Sample(self._source, self._plan.eval.pictures)
    figure = tokens.draw_tokens(network, self._plan, sample)
    tokens.save(figure, self._workdir / "pictures" / f"tokens_{step:07}.png")
