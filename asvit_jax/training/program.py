"""The program of a run: its step over all devices, as a config wants it."""

from asvit_jax.losses import criteria
from asvit_jax.losses.objective import Objective
from asvit_jax.sparsity.complexity import target_gmacs
from asvit_jax.training import parallel
from asvit_jax.training.step import Options, make_step


def make_program(config, network, optimizer, devices=None, class_weights=None):
  """Builds it.

  Of a pruned network, the metrics of a step hold the `thresholds` that it left, too: the state
  itself is gone once the next step has begun.

  Args:
    config: see `config.base`.
    network: the `Network` to train; what it is, not its parameters.
    optimizer: an optax optimizer.
    devices: see `parallel.parallelize`.
    class_weights: what each class counts for in the loss; None for 1.

  Returns:
    What `parallel.parallelize` returns, and the `Objective`.
  """
  objective = Objective(
    weights=dict(config.loss),
    target_gmacs=target_gmacs(network.arch, config.budget),
    temperature=config.temperature,
    remat=config.model.remat,
    criterion=criteria.Criterion(config.criterion.name, criteria.parse(config), class_weights),
  )
  teacher = network.dense if network.prunes else None
  step = make_step(network, teacher, objective, optimizer, Options.of(config))

  def reporting_step(state, teacher_params, batch):
    state, metrics = step(state, teacher_params, batch)
    if network.prunes:
      metrics = metrics | {"thresholds": state.params["thresholds"]}
    return state, metrics

  return parallel.parallelize(reporting_step, config.parallel, devices), objective
