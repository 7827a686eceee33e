"""Evaluations of a run under way, and pictures of what it keeps."""

from asvit_jax.core import exchange, hosts, storage
from asvit_jax.data import sources
from asvit_jax.evaluation import accuracy
from asvit_jax.run import metrics, ranking
from asvit_jax.training.reporting import describe_evaluation, log


class Evaluator:
  """Evaluates the averaged weights of a run, and the raw ones, in one pass over the images.

  Args:
    config: see `config.base`.
    workdir: of the run.
    network: the `Network` in training; what it is, not its parameters.
    source: images to evaluate on.
    steps: number of steps of the whole run.
    reporter: a `Reporter`.
  """

  def __init__(self, config, workdir, network, source, steps, reporter):
    self._config, self._workdir, self._network = config, storage.path(workdir), network
    self._source, self._steps, self._reporter = source, steps, reporter
    found = ranking.of_run(workdir, config) if hosts.is_first() else []
    found = exchange.gather([(evaluation.step, evaluation.rank) for evaluation in found])[0]
    self._ranks = {}  # of every step that was evaluated, in their order
    for evaluated, rank in found:
      self._note(evaluated, rank)

  def _note(self, step, rank):
    self._ranks[step] = max(rank, self._ranks.get(step, rank))

  @property
  def is_exhausted(self):
    """Whether `eval.patience` evaluations in a row were no better than one before them."""
    patience, ranks = self._config.eval.patience, list(self._ranks.values())
    return bool(patience and ranks) and len(ranks) - 1 - ranks.index(max(ranks)) >= patience

  def is_due(self, step):
    """Whether a step is one that is evaluated."""
    return step % self._config.eval.every == 0 or step == self._steps

  def is_missing(self, step):
    """Whether the run was told to stop before it had evaluated the step it goes on from."""
    if step == 0 or not self.is_due(step):
      return False
    lines = metrics.read(self._workdir, "eval") if hosts.is_first() else []
    return hosts.all_true(not hosts.is_first() or step not in [line["step"] for line in lines])

  def __call__(self, state, stopped):
    """Evaluates a `TrainState` and writes the results.

    Args:
      state: it, on the host.
      stopped: function that says whether to stop in the middle of it.

    Returns:
      {weights, `ranking.EMA` or `ranking.RAW`: their `ranking.rank`}; None where `stopped` said so.
    """
    step = int(state.step)
    weights = {"eval": state.ema, "eval_raw": state.params} if state.ema else {"eval": state.params}
    execution = "masked" if self._network.prunes else "dense"
    networks = [self._network.with_params(params) for params in weights.values()]
    found = accuracy.evaluate_each(networks, self._config, self._source, execution, stopped=stopped)
    if found is None:
      return None
    results = dict(zip(weights, found, strict=True))
    about, target = ranking.kinds(self._config), self._config.budget
    for kind, result in results.items():
      result |= {} if target is None else {"target": target}
      self._reporter.write(step, kind, result)
      name = ranking.NAMES[about[kind]]
      log(f"step {step}/{self._steps}  evaluation, {name}: {describe_evaluation(result)}")
    if self._network.prunes and hosts.is_first() and self._config.eval.pictures:
      self._draw(step, self._network.with_params(weights["eval"]))
    ranks = {about[kind]: ranking.rank(r, self._config) for kind, r in results.items()}
    self._note(step, max(ranks.values()))
    return ranks

  def _draw(self, step, network):
    from asvit_jax.report import tokens  # matplotlib takes a second to import

    sample = sources.Sample(self._source, self._config.eval.pictures)
    figure = tokens.draw_tokens(network, self._config, sample)
    tokens.save(figure, self._workdir / "pictures" / f"tokens_{step:07}.png")
