"""The training loop: a run from its last checkpoint to its end."""

import contextlib
import functools
import time

import jax
import numpy as np

from asvit_jax.core import exchange, hosts
from asvit_jax.core.ahead import Ahead
from asvit_jax.core.devices import host_device
from asvit_jax.core.errors import DivergedError, InputError
from asvit_jax.data import loader
from asvit_jax.optimizers import building
from asvit_jax.run import metrics, ranking
from asvit_jax.training import parallel, summary
from asvit_jax.training.opening import calibrated
from asvit_jax.training.reporting import Evaluator, Reporter, describe_step
from asvit_jax.training.step import create_state, make_program, state_shapes


class Clock:
  """Times the steps between two reports, without evaluations and checkpoints.

  Args:
    step: the last completed step.
  """

  def __init__(self, step):
    self.restart(step)

  def restart(self, step):
    """Restarts the timing after `step`."""
    self._step, self._since, self._waited = step, time.perf_counter(), 0.0

  @contextlib.contextmanager
  def waiting(self):
    """Context manager that counts its block as waiting for data."""
    asked = time.perf_counter()
    yield
    self._waited += time.perf_counter() - asked

  def rates(self, step):
    """(steps per second, share of the time spent waiting for data) up to `step`; then restarts."""
    now = time.perf_counter()
    seconds, steps, waited = now - self._since, step - self._step, self._waited
    self._step, self._since, self._waited = step, now, 0.0
    return steps / seconds, waited / seconds


class Session:
  """A training run in progress: its program, its state, and its checkpoints and metrics.

  The state is on all devices; the initial parameters are kept nowhere else. While a step runs, the
  next two batches are made and copied to the devices, and the metrics of the previous step are read
  and reported. A transfer guard rejects implicit copies between host and devices.

  Args:
    opened: an `Opened`.
    workdir: directory of the run, which `training.train` has claimed.
    check_lock: function that raises InputError if another run has taken over the workdir.

  Raises:
    InputError: the hosts see different checkpoints, or no checkpoint can be restored.
  """

  def __init__(self, opened, workdir, check_lock):
    from asvit_jax.run.checkpoints import Checkpoints  # Orbax takes a second to import

    self.plan, self.workdir, self.source = opened.plan, workdir, opened.source
    plan, self.check_lock = opened.plan, check_lock
    self.network = jax.eval_shape(lambda network: network, opened.network)  # without parameters
    self.steps = plan.steps
    self.optimizer = building.create(plan.optimizer, plan.schedule)
    self.checkpoints = Checkpoints(workdir)
    self.program, self.objective = make_program(plan, self.network, self.optimizer)
    state = self._first_state(opened)
    self.start = self.saved = int(state.step)
    self.proved = bool(self.checkpoints.steps)  # whether a checkpoint was read back successfully
    self.state = parallel.replicate(state, plan.parallel)
    teacher_params = exchange.from_first(opened.teacher_params)
    self.teacher_params = parallel.replicate(teacher_params, plan.parallel)
    self.put = functools.partial(parallel.shard, kind=plan.parallel)
    self.reporter = Reporter(workdir, self.start, plan, check_lock)
    self.evaluator = Evaluator(plan, workdir, self.network, opened.eval_source, self.reporter)
    counted = summary.summarize(plan, self.network, opened.source, opened.eval_source)
    hosts.log_first(summary.describe(counted))

  def _first_state(self, opened):
    """The state to start from: that of the latest checkpoint, or a new one."""
    plan, steps = self.plan, self.checkpoints.steps
    if not hosts.agree(steps):
      raise InputError(
        f"the hosts see different checkpoints in {self.checkpoints.directory}; this host sees "
        f"{steps}: give a --workdir that all of them share"
      )
    if not steps:
      network = opened.network
      if network.prunes and plan.thresholds == "calibrated":
        network = calibrated(plan, network, opened.source)
      # Thresholds calibrated on the same images may differ between hosts in the last bit.
      params = exchange.from_first(network.params)
      return create_state(params, self.optimizer, plan.ema_decay)
    target = state_shapes(self.network.params, self.optimizer, plan.ema_decay)
    state = self.checkpoints.restore(target)
    hosts.log_first(f"resuming {self.workdir} from step {int(state.step)} of {self.steps}")
    return state

  def run(self):
    """Takes the remaining steps.

    Returns:
      Dictionary for JSON: the last evaluation; or, if the run was told to stop, `workdir`, `step`
      and `finished`, False.
    """
    with hosts.StopSignal() as stop, contextlib.closing(self.reporter):
      try:
        stopped_at = self._run(stop)
      except BaseException:
        self._settle()
        raise
      if stopped_at is not None:
        return self._stopped(stopped_at)
      self.checkpoints.wait()
      self.reporter.flush()
    return {"workdir": str(self.workdir), **(self._results() if hosts.is_first() else {})}

  def _run(self, stop):
    """Takes the steps; returns the step at which the run was told to stop, None if it ended."""
    if not self._caught_up(stop):
      return self.start
    if self.evaluator.is_exhausted:
      return None
    with self._batches(stop) as batches:
      return self._take_steps(batches, stop)

  def _settle(self):
    """Waits for the checkpoint being saved, so that an error does not lose it."""
    failed = self.checkpoints.failed
    try:
      self.checkpoints.wait()
    except Exception as error:
      if not failed:  # if it had failed before, this error is already ending the run
        hosts.log_first(f"WARNING: {error}")

  def _results(self):
    """The last evaluation and the best step, for JSON; logs whether the budget was met."""
    plan, saved = self.plan, self.checkpoints.steps
    lines = metrics.read(self.workdir)
    last = [line for line in lines if line["kind"] == "eval"][-1]
    best = ranking.best([e for e in ranking.evaluations(lines, plan) if e.step in saved])
    hosts.log_first(f"best: {ranking.describe(best)}; --step best takes it")
    results = last | {"best_step": best.step, "best_weights": best.weights}
    if self.evaluator.is_exhausted and last["step"] < self.steps:
      results["stopped_early"] = True
      hosts.log_first(
        f"stopped early, at step {last['step']} of {self.steps}: the last {plan.eval.patience} "
        "evaluations were no better than an earlier one (eval.patience)"
      )
    if plan.budget is None:
      return results
    hosts.log_first(ranking.verdict(last, plan.budget, plan, f"--workdir {self.workdir}"))
    met = ranking.meets(last, plan.budget, plan)
    return results | {"target": plan.budget, "budget_met": met}

  def _batches(self, stop):
    """The remaining batches on the devices, each with the number of unreadable images so far.

    A thread copies them to the devices, two ahead. The iteration ends only if the run is told to
    stop while it waits for a batch.
    """
    bad_images = set()
    batches = loader.train_batches(
      self.plan,
      self.source,
      self.network.preprocessing,
      self.start,
      jax.process_index(),
      jax.process_count(),
      bad_images,
    )
    put = self.put
    return Ahead(batches, lambda batch: (put(batch), len(bad_images)), stopped=stop.noticed)

  def _take_steps(self, batches, stop):
    """The loop; returns the step at which the run was told to stop, None if it ended by itself."""
    plan, before, clock = self.plan, None, Clock(self.start)
    for step in range(self.start + 1, self.steps + 1):
      found = self._next(batches, clock, before, step - 1)
      if found is None:
        return step - 1
      batch, bad_images = found
      del found  # or the batch would occupy memory until the next one arrives
      # Compilation, in the first step, copies the program's constants to the devices.
      with jax.transfer_guard("disallow" if step > self.start + 1 else "allow"):
        self.state, values = self.program(self.state, self.teacher_params, batch)
        del batch
        # Report the previous step while this one runs: reading its metrics waits for it alone.
        self._finish(before, clock)
      before = step, values, bad_images
      self.check_lock()
      self.checkpoints.check()
      stopping, evaluating = self._told_to_stop(step, stop), self.evaluator.is_due(step)
      if evaluating or stopping or step % plan.checkpoint_every == 0:
        self._finish(before, clock)
        before = None
        state, ranks = parallel.unreplicate(self.state, plan.parallel), None
        if evaluating and not stopping:
          ranks = self._evaluate(step, state, stop)
          stopping = ranks is None
        self._save(step, state, ranks)
        if stopping:
          return step
        if self.evaluator.is_exhausted:
          return None
        clock.restart(step)  # evaluating and saving do not count as training time
    return None

  def _next(self, batches, clock, before, done):
    """The next batch; None if the run is told to stop while it waits for one.

    In that case, and if loading fails, the last step is reported and saved first.
    """

    def leave():
      self._finish(before, clock)
      self._save_by_itself(done)

    try:
      with clock.waiting():
        batch = next(batches, None)
      if batch is not None:
        return batch
    except Exception:
      leave()
      raise
    leave()
    return None

  def _evaluate(self, step, state, stop):
    """Evaluates a step, see `Evaluator`; if that fails, the step is saved without a rank."""
    try:
      return self.evaluator(state, stop.noticed)
    except Exception:
      self._save_by_itself(step, state)
      raise

  def _save(self, step, state, ranks=None):
    self.reporter.flush()  # a run that resumes from this step needs the metrics up to it
    self.check_lock()  # an evaluation may take long
    self.checkpoints.save(state, ranks)
    self.saved = step
    if not self.proved:
      self.checkpoints.prove(state)
      self.proved = True

  def _save_by_itself(self, step, state=None):
    """Saves a step at which only this host stops.

    With several hosts nothing is saved, as the others are not there to take part in saving.
    """
    if step > self.saved and jax.process_count() == 1:
      self._save(step, state or parallel.unreplicate(self.state, self.plan.parallel))

  def _finish(self, done, clock):
    """Reports a completed step if a report is due; raises if too many steps were skipped.

    Args:
      done: (step, its metrics, the number of unreadable images so far), or None.
      clock: the `Clock` of the run.
    """
    if done is None:
      return
    step, values, bad_images = done
    if step % self.plan.log_every == 0 or step == self.steps:
      self._report(step, values, clock, bad_images)
    self._check_finite(step, values)

  def _caught_up(self, stop):
    """Evaluates the step to resume from if that is missing; False if told to stop meanwhile."""
    if not self.evaluator.is_missing(self.start):
      return True
    state = parallel.unreplicate(self.state, self.plan.parallel)
    return self.evaluator(state, stop.noticed) is not None

  def _told_to_stop(self, step, stop):
    return step < self.steps and stop.received(step)

  def _stopped(self, step):
    self.checkpoints.wait()
    saved = f"saved step {step} of {self.steps}" if step else "there was no step to save"
    hosts.log_first(f"told to stop: {saved}; run the same command to resume")
    return {"workdir": str(self.workdir), "step": step, "finished": False}

  def _check_finite(self, step, values):
    """Raises DivergedError if too many steps in a row, up to this one, were skipped."""
    skipped = int(parallel.unreplicate(values["skipped"], self.plan.parallel))
    if skipped <= self.plan.max_skipped_steps:
      return
    self.checkpoints.wait()
    values = parallel.unreplicate(values, self.plan.parallel)
    terms = ", ".join(f"{k} {float(v):.4g}" for k, v in values.items() if np.ndim(v) == 0)
    raise DivergedError(
      f"the loss or its gradient is not finite for {skipped} steps in a row, up to step {step} "
      f"({terms}); the last good checkpoint in {self.checkpoints.directory} is step "
      f"{self.checkpoints.latest_step}; lower optimizer.lr or set optimizer.clip_norm, in another "
      "--workdir"
    )

  def _report(self, step, values, clock, bad_images):
    """Writes the metrics of a step, and a line of progress."""
    values = parallel.unreplicate(values, self.plan.parallel)
    if self.network.budgets:  # the first row belongs to the budget of the config
      values |= {"thresholds": values["thresholds"][0]}
    values = jax.tree.map(lambda x: x.tolist(), values)
    rate, waiting = clock.rates(step)
    values |= self._learning_rates(values.pop("updates")) | {
      "images_per_s": rate * self.plan.batch_size,
      "data_wait": waiting,
      "bad_images": bad_images,
    }
    self.reporter.write(step, "train", values)
    target = self.objective.target_gmacs
    if "drawn_budget" in values:
      target = values["drawn_budget"] * self.network.dense_gmacs
    hosts.log_first(describe_step(step, self.steps, rate, values, target))

  def _learning_rates(self, step):
    """The learning rates of the parameters and the thresholds; `step` excludes skipped steps."""
    # On the host: an accelerator would compute this only after the step in progress.
    with jax.default_device(host_device()), jax.transfer_guard("allow"):
      lr = float(self.plan.schedule(step))
    if not self.network.prunes:
      return {"lr": lr}
    return {"lr": lr, "lr_thresholds": lr * self.plan.optimizer.thresholds_lr}
