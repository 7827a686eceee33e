"""A run from its last checkpoint to its end."""

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
from asvit_jax.training.reporting import Evaluator, Reporter, describe_step, log
from asvit_jax.training.step import create_state, make_program, state_shapes


class Clock:
  """Times the steps between two reports; evaluations and checkpoints do not count.

  Args:
    step: the last one that was done.
  """

  def __init__(self, step):
    self.restart(step)

  def restart(self, step):
    """Begins to count after `step`."""
    self._step, self._since, self._waited = step, time.perf_counter(), 0.0

  @contextlib.contextmanager
  def waiting(self):
    """The block is waiting for data."""
    asked = time.perf_counter()
    yield
    self._waited += time.perf_counter() - asked

  def rates(self, step):
    """(steps a second, share of the time that was waiting), up to `step`; then begins anew."""
    now = time.perf_counter()
    seconds, steps, waited = now - self._since, step - self._step, self._waited
    self._step, self._since, self._waited = step, now, 0.0
    return steps / seconds, waited / seconds


class Session:
  """What a run needs to take its steps: its program, its state, and where it writes.

  The state is on all devices, and the first parameters are kept nowhere else. While a step runs,
  the next two batches are made and put on the devices, and what the step before did is read and
  reported; nothing is copied between host and devices that nobody asked for.

  Args:
    opened: an `Opened`.
    workdir: directory of the run, which `training.train` has claimed.
    check_lock: raises InputError where another run has taken the workdir over.

  Raises:
    InputError: the hosts see different checkpoints, or none of them can be restored.
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
    self.proved = bool(self.checkpoints.steps)  # that what is saved here can be read
    self.state = parallel.replicate(state, plan.parallel)
    teacher_params = exchange.from_first(opened.teacher_params)
    self.teacher_params = parallel.replicate(teacher_params, plan.parallel)
    self.put = functools.partial(parallel.shard, kind=plan.parallel)
    self.reporter = Reporter(workdir, self.start, plan, check_lock)
    self.evaluator = Evaluator(plan, workdir, self.network, opened.eval_source, self.reporter)
    counted = summary.summarize(plan, self.network, opened.source, opened.eval_source)
    log(summary.describe(counted))

  def _first_state(self, opened):
    """The state to go on from: that of the latest checkpoint, or a new one."""
    plan, steps = self.plan, self.checkpoints.steps
    if not hosts.agree(steps):
      raise InputError(
        f"the hosts see different checkpoints in {self.checkpoints.directory}, this one {steps}: "
        "give a --workdir that all of them share"
      )
    if not steps:
      network = opened.network
      if network.prunes and plan.thresholds == "calibrated":
        network = calibrated(plan, network, opened.source)
      # What hosts compute of the same images may differ in the last bit, and would for ever.
      params = exchange.from_first(network.params)
      return create_state(params, self.optimizer, plan.ema_decay)
    target = state_shapes(self.network.params, self.optimizer, plan.ema_decay)
    state = self.checkpoints.restore(target)
    log(f"resuming {self.workdir} from step {int(state.step)} of {self.steps}")
    return state

  def run(self):
    """Takes the steps that are left; returns the last evaluation, or where it was told to stop."""
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
    """Returns the step at which it was told to stop; None at its end."""
    if not self._caught_up(stop):
      return self.start
    if self.evaluator.is_exhausted:
      return None
    with self._batches(stop) as batches:
      return self._take_steps(batches, stop)

  def _settle(self):
    """Waits for the step that is being saved, so that an error loses none, and is said last."""
    failed = self.checkpoints.failed
    try:
      self.checkpoints.wait()
    except Exception as error:
      if not failed:  # or it is what ends the run
        log(f"WARNING: {error}")

  def _results(self):
    """Of the last evaluation and the best, for JSON; the last line of progress is on the budget."""
    plan, saved = self.plan, self.checkpoints.steps
    lines = metrics.read(self.workdir)
    last = [line for line in lines if line["kind"] == "eval"][-1]
    best = ranking.best([e for e in ranking.evaluations(lines, plan) if e.step in saved])
    log(f"best: {ranking.describe(best)}; --step best takes it")
    results = last | {"best_step": best.step, "best_weights": best.weights}
    if self.evaluator.is_exhausted and last["step"] < self.steps:
      results["stopped_early"] = True
      log(
        f"stopped early, at step {last['step']} of {self.steps}: the last {plan.eval.patience} "
        "evaluations were no better than one before (eval.patience)"
      )
    if plan.budget is None:
      return results
    log(ranking.verdict(last, plan.budget, plan, f"--workdir {self.workdir}"))
    met = ranking.meets(last, plan.budget, plan)
    return results | {"target": plan.budget, "budget_met": met}

  def _batches(self, stop):
    """What is left of them, each with the number of unreadable images up to it.

    A thread puts them on the devices, two ahead. They end where the run is told to stop while none
    comes, and nowhere else.
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
    """Returns the step at which it was told to stop; None at its end, which may be early."""
    plan, before, clock = self.plan, None, Clock(self.start)
    for step in range(self.start + 1, self.steps + 1):
      found = self._next(batches, clock, before, step - 1)
      if found is None:
        return step - 1
      batch, bad_images = found
      del found  # or the batch would be there until the next has come
      # What a program needs for itself goes to the devices as it is compiled, in the first step.
      with jax.transfer_guard("disallow" if step > self.start + 1 else "allow"):
        self.state, values = self.program(self.state, self.teacher_params, batch)
        del batch
        # Of the step before, which is done by the time its metrics are there; this one runs.
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
        clock.restart(step)  # neither counts as training time
    return None

  def _next(self, batches, clock, before, done):
    """The next batch; None where the run is told to stop while none comes.

    There, and where there is none for an error, what is known of the last step is said, and it is
    saved.
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
    """Evaluates a step, see `Evaluator`; if that fails, the step is saved without."""
    try:
      return self.evaluator(state, stop.noticed)
    except Exception:
      self._save_by_itself(step, state)
      raise

  def _save(self, step, state, ranks=None):
    self.reporter.flush()  # a run that goes on from there needs what led there
    self.check_lock()  # an evaluation may take long
    self.checkpoints.save(state, ranks)
    self.saved = step
    if not self.proved:
      self.checkpoints.prove(state)
      self.proved = True

  def _save_by_itself(self, step, state=None):
    """Saves a step at which only this host stops; of several, whose others wait elsewhere, none."""
    if step > self.saved and jax.process_count() == 1:
      self._save(step, state or parallel.unreplicate(self.state, self.plan.parallel))

  def _finish(self, done, clock):
    """Reports a step where that is due, and stops where it was one too many that changed nothing.

    Args:
      done: (step, its metrics, the number of unreadable images up to it), or None.
      clock: of the run.
    """
    if done is None:
      return
    step, values, bad_images = done
    if step % self.plan.log_every == 0 or step == self.steps:
      self._report(step, values, clock, bad_images)
    self._check_finite(step, values)

  def _caught_up(self, stop):
    """Evaluates the step to go on from, if that is missing; False where told to stop meanwhile."""
    if not self.evaluator.is_missing(self.start):
      return True
    state = parallel.unreplicate(self.state, self.plan.parallel)
    return self.evaluator(state, stop.noticed) is not None

  def _told_to_stop(self, step, stop):
    return step < self.steps and stop.received(step)

  def _stopped(self, step):
    self.checkpoints.wait()
    saved = f"saved step {step} of {self.steps}" if step else "there was no step to save"
    log(f"told to stop: {saved}; run the same command to go on")
    return {"workdir": str(self.workdir), "step": step, "finished": False}

  def _check_finite(self, step, values):
    """Stops where too many steps in a row, up to this one, changed nothing."""
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
    if self.network.budgets:  # the first is that of the config
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
    log(describe_step(step, self.steps, rate, values, target))

  def _learning_rates(self, step):
    """Of the groups of parameters that have their own; skipped steps do not count in `step`."""
    # On an accelerator it would wait for the step that is under way.
    with jax.default_device(host_device()), jax.transfer_guard("allow"):
      lr = float(self.plan.schedule(step))
    if not self.network.prunes:
      return {"lr": lr}
    return {"lr": lr, "lr_thresholds": lr * self.plan.optimizer.thresholds_lr}
