"""A run from its last checkpoint to its end."""

import jax
import numpy as np

from asvit_jax.core import hosts
from asvit_jax.core.errors import DivergedError, InputError
from asvit_jax.data import loader
from asvit_jax.run import metrics
from asvit_jax.training import parallel, plan
from asvit_jax.training.clock import Clock
from asvit_jax.training.evaluator import Evaluator
from asvit_jax.training.optimizers.building import create
from asvit_jax.training.program import make_program
from asvit_jax.training.reporting import Reporter, describe_step, log
from asvit_jax.training.schedule import total_steps
from asvit_jax.training.setup import calibrated
from asvit_jax.training.step import create_state, state_shapes


class Session:
  """What a run needs to take its steps: its program, its state, and where it writes.

  The state is on all devices, and the first parameters are kept nowhere else.

  Args:
    config: see `config.base`.
    workdir: of the run, with its config in it.
    setup: a `Setup`.

  Raises:
    InputError: the hosts see different checkpoints, or none of them can be restored.
  """

  def __init__(self, config, workdir, setup):
    from asvit_jax.run.checkpoints import Checkpoints  # Orbax takes a second to import

    self.config, self.workdir, self.source = config, workdir, setup.source
    self.network = jax.eval_shape(lambda network: network, setup.network)  # without parameters
    self.steps = total_steps(config, len(setup.source))
    self.optimizer, self.schedule = create(config, self.steps)
    self.checkpoints = Checkpoints(workdir)
    self.program, self.objective = make_program(config, self.network, self.optimizer)
    state = self._first_state(setup)
    self.start = int(state.step)
    self.state = parallel.replicate(state, config.parallel)
    self.teacher_params = parallel.replicate(setup.teacher_params, config.parallel)
    self.reporter = Reporter(workdir, self.start)
    self.evaluator = Evaluator(
      config, workdir, self.network, setup.eval_source, self.steps, self.reporter
    )
    log(plan.describe(plan.plan(config, self.network, setup.source, setup.eval_source)))

  def _first_state(self, setup):
    """The state to go on from: that of the latest checkpoint, or a new one."""
    config, steps = self.config, self.checkpoints.steps
    if not hosts.agree(steps):
      raise InputError(
        f"the hosts see different checkpoints in {self.checkpoints.directory}, this one {steps}: "
        "give a --workdir that all of them share"
      )
    if not steps:
      network = setup.network
      if network.prunes and config.thresholds == "calibrated":
        network = calibrated(config, network, setup.source)
      return create_state(network.params, self.optimizer, config.ema_decay)
    target = state_shapes(self.network.params, self.optimizer, config.ema_decay)
    state = self.checkpoints.restore(target)
    log(f"resuming {self.workdir} from step {int(state.step)} of {self.steps}")
    return state

  def run(self):
    """Takes the steps that are left; returns the last evaluation, or where it was told to stop."""
    config, values, bad_images = self.config, None, set()
    shard = jax.process_index(), jax.process_count()
    batches = loader.train_batches(
      config, self.source, self.network.preprocessing, self.start, *shard, bad_images
    )
    with hosts.StopSignal() as stop:
      if not self._caught_up(stop):
        return self._stopped(self.start)
      clock = Clock(self.start)
      for step in range(self.start + 1, self.steps + 1):
        with clock.waiting():
          batch = next(batches)
        before, values = values, self._take_step(batch)
        self._check_finite(step - 1, before)  # so that this one need not be done
        self.checkpoints.check()
        if step % config.log_every == 0 or step == self.steps:
          self._report(step, values, clock, len(bad_images))
        stopping, evaluating = self._told_to_stop(step, stop), self.evaluator.is_due(step)
        if evaluating or stopping or step % config.checkpoint_every == 0:
          state, top1 = parallel.unreplicate(self.state, config.parallel), None
          if evaluating and not stopping:
            top1 = self.evaluator(state, stop.noticed)
            stopping = top1 is None
          self._check_finite(step, values)
          self.checkpoints.save(state, top1)
          if stopping:
            return self._stopped(step)
          clock.restart(step)  # neither counts as training time
    self.checkpoints.wait()
    last = metrics.read(self.workdir, "eval")[-1] if hosts.is_first() else {}
    return {"workdir": str(self.workdir), **last}

  def _caught_up(self, stop):
    """Evaluates the step to go on from, if that is missing; False where told to stop meanwhile."""
    if not self.evaluator.is_missing(self.start):
      return True
    state = parallel.unreplicate(self.state, self.config.parallel)
    return self.evaluator(state, stop.noticed) is not None

  def _take_step(self, batch):
    """Moves the state by a batch of this host; returns the metrics, still on the devices."""
    batch = parallel.shard(batch, self.config.parallel)
    self.state, values = self.program(self.state, self.teacher_params, batch)
    return values

  def _told_to_stop(self, step, stop):
    return step < self.steps and stop.received(step)

  def _stopped(self, step):
    self.checkpoints.wait()
    log(f"told to stop: saved step {step} of {self.steps}; run the same command to go on")
    return {"workdir": str(self.workdir), "step": step, "finished": False}

  def _check_finite(self, step, values):
    """Stops where too many steps in a row, up to this one, changed nothing."""
    if values is None:
      return
    skipped = int(parallel.unreplicate(values["skipped"], self.config.parallel))
    if skipped <= self.config.max_skipped_steps:
      return
    self.checkpoints.wait()
    values = parallel.unreplicate(values, self.config.parallel)
    terms = ", ".join(f"{k} {float(v):.4g}" for k, v in values.items() if np.ndim(v) == 0)
    raise DivergedError(
      f"the loss or its gradient is not finite for {skipped} steps in a row, up to step {step} "
      f"({terms}); the last good checkpoint in {self.checkpoints.directory} is step "
      f"{self.checkpoints.latest_step}; lower optimizer.lr or set optimizer.clip_norm, in another "
      "--workdir"
    )

  def _report(self, step, values, clock, bad_images):
    """Writes the metrics of a step, and a line of progress."""
    if self.network.prunes:
      values = values | {"thresholds": self.state.params["thresholds"]}
    values = parallel.unreplicate(values, self.config.parallel)
    if self.network.budgets:  # the first is that of the config
      values |= {"thresholds": values["thresholds"][0]}
    values = jax.tree.map(lambda x: x.tolist(), values)
    rate, waiting = clock.rates(step)
    values |= self._learning_rates(step - 1) | {
      "images_per_s": rate * self.config.batch_size,
      "data_wait": waiting,
      "bad_images": bad_images,
    }
    self.reporter.write(step, "train", values)
    target = self.objective.target_gmacs
    if "drawn_budget" in values:
      target = values["drawn_budget"] * self.network.dense_gmacs
    log(describe_step(step, self.steps, rate, values, target))

  def _learning_rates(self, step):
    """Of the groups of parameters that have their own."""
    lr = float(self.schedule(step))
    if not self.network.prunes:
      return {"lr": lr}
    return {"lr": lr, "lr_thresholds": lr * self.config.optimizer.thresholds_lr}
