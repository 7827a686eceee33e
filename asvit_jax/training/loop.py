"""The training loop: data, step, evaluation, checkpoints, on all devices of all hosts."""

import pathlib
import time

import jax
import numpy as np

from asvit_jax import calibration, checkpoint, cli, complexity, evaluation, visualize, vit
from asvit_jax import config as config_lib
from asvit_jax.data import loader, sources
from asvit_jax.errors import DivergedError, InputError
from asvit_jax.training import hosts, inputs, parallel, plan
from asvit_jax.training import metrics as metrics_lib
from asvit_jax.training import optimizer as optimizer_lib
from asvit_jax.training.mixing import Mixing
from asvit_jax.training.step import Objective, create_state, make_step


def train(config, workdir, dry_run=False):
  """Trains a network, or goes on with a run that stopped.

  Args:
    config: see `config.base`.
    workdir: gets `config.json`, `checkpoints/`, `metrics.jsonl`, `pictures/` and `tensorboard/`.
    dry_run: check everything, write nothing, and say what would be run.

  Returns:
    Dictionary: `workdir`, `step`, and the last evaluation; where a SIGTERM ended the run,
    `finished` is False. Of a dry run, what `plan.plan` says and the `memory_mb` of a step on a
    device.

  Raises:
    InputError: anything in the config, the data, the weights or the workdir that does not fit,
      before the first step where it can be known then; a disk that is full; more unreadable images
      than allowed; a loss that stays not finite (`DivergedError`).
  """
  config_lib.check(config)
  arch = config_lib.architecture(config)
  source = sources.open_source(config.data, config.data.train_split)
  eval_source = sources.open_source(config.data, config.data.eval_split)
  loader.check_classes(config, source)
  loader.check_classes(config, eval_source)
  graphdef, params = _initial(config, arch)
  teacher_graphdef, teacher_params = _teacher(config, arch, params)
  for images in (source, eval_source):
    sources.check_images(images, config.data.check_images, config.data.max_bad_images)
  _check_freeze(config, params)
  config_lib.check_workdir(config, workdir)
  began_with = inputs.describe(source, teacher_params)
  inputs.check(began_with, workdir)
  if dry_run:
    planned = plan.plan(config, arch, params, source, eval_source)
    _log(plan.describe(planned))
    optimizer, _ = optimizer_lib.create(config, planned["steps"])
    program, _ = _program(config, arch, graphdef, teacher_graphdef, optimizer)
    memory = plan.memory_mb(config, program, params, teacher_params, optimizer)
    return planned | {"memory_mb": memory}
  try:
    if hosts.is_first():
      config_lib.save(config, workdir)
      inputs.save(began_with, workdir)
    run = _Run(config, workdir, arch, graphdef, params, teacher_graphdef, source, eval_source)
    return run.train(teacher_params)
  except OSError as error:
    raise InputError(
      f"the run in {workdir} cannot write ({error}): make room or mend the disk, and run the same "
      "command to go on from its last checkpoint"
    ) from error


class _Run:
  """A run whose inputs are checked: its programs, and what it writes."""

  def __init__(
    self, config, workdir, arch, graphdef, params, teacher_graphdef, source, eval_source
  ):
    self.config, self.workdir, self.arch = config, workdir, arch
    self.source, self.eval_source = source, eval_source
    self.steps = config_lib.total_steps(config, len(source))
    optimizer, self.schedule = optimizer_lib.create(config, self.steps)
    self.checkpoints = checkpoint.Checkpoints(workdir)
    self.step, self.objective = _program(config, arch, graphdef, teacher_graphdef, optimizer)
    execution = "masked" if arch.prune_before else "dense"
    self.eval_step = evaluation.make_eval_step(arch, execution, config.model.dtype)
    self.state = self._start(params, optimizer)
    self.metrics = metrics_lib.Metrics(workdir, int(self.state.step)) if hosts.is_first() else None
    _log(plan.describe(plan.plan(config, arch, params, source, eval_source)))

  def _start(self, params, optimizer):
    """The state to go on from: that of the latest checkpoint, or a new one."""
    config, steps = self.config, self.checkpoints.steps
    if not hosts.agree(steps):
      raise InputError(
        f"the hosts see different checkpoints in {self.checkpoints.directory}, this one {steps}: "
        "give a --workdir that all of them share"
      )
    if not steps:
      if self.arch.prune_before and config.thresholds == "calibrated":
        params = _calibrated(config, self.arch, params, self.source)
      return create_state(params, optimizer, config.ema_decay)
    target = jax.eval_shape(lambda: create_state(params, optimizer, config.ema_decay))
    state = self.checkpoints.restore(target)
    _log(f"resuming {self.workdir} from step {int(state.step)} of {self.steps}")
    return state

  def train(self, teacher_params):
    """Runs the steps that are left; returns the last evaluation."""
    config, kind, start = self.config, self.config.parallel, int(self.state.step)
    state = parallel.replicate(self.state, kind)
    teacher_params = parallel.replicate(teacher_params, kind)
    last, logged, waited, skipped = time.perf_counter(), start, 0.0, None
    shard, bad_images = (jax.process_index(), jax.process_count()), set()
    batches = loader.train_batches(config, self.source, start, *shard, bad_images)
    with hosts.StopSignal() as stop:
      if self._evaluation_is_missing(start) and self._evaluate(self.state, stop) is None:
        return self._stopped(start)
      for i in range(start + 1, self.steps + 1):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        state, values = self.step(state, teacher_params, parallel.shard(batch, kind))
        self._check_finite(i - 1, skipped)  # of the step before, so that this one need not be done
        skipped = values
        self.checkpoints.check()
        stopping = i < self.steps and stop.received(i)
        if i % config.log_every == 0 or i == self.steps:
          values = self._values(state, values)
          now = time.perf_counter()
          rate = (i - logged) / (now - last)
          values |= self._learning_rates(i - 1) | {
            "images_per_s": rate * config.batch_size,
            "data_wait": waited / (now - last),
            "bad_images": len(bad_images),
          }
          self._write(i, "train", values)
          _log(_progress(i, self.steps, rate, values, self.objective.target_gmacs))
          last, logged, waited = now, i, 0.0
        evaluating, top1 = self._evaluation_is_due(i), None
        if evaluating and not stopping:
          top1 = self._evaluate(parallel.unreplicate(state, kind), stop)
          stopping = top1 is None
        if i % config.checkpoint_every == 0 or evaluating or stopping:
          self._check_finite(i, skipped)
          self.checkpoints.save(parallel.unreplicate(state, kind), top1)
          if stopping:
            return self._stopped(i)
          last, logged, waited = time.perf_counter(), i, 0.0  # neither counts as training time
    self.checkpoints.wait()
    last = metrics_lib.read(self.workdir, "eval")[-1] if hosts.is_first() else {}
    return {"workdir": str(self.workdir), **last}

  def _stopped(self, step):
    self.checkpoints.wait()
    _log(f"told to stop: saved step {step} of {self.steps}; run the same command to go on")
    return {"workdir": str(self.workdir), "step": step, "finished": False}

  def _evaluation_is_due(self, step):
    return step % self.config.eval.every == 0 or step == self.steps

  def _evaluation_is_missing(self, step):
    """Whether the run was told to stop before it had evaluated the step it goes on from."""
    if step == 0 or not self._evaluation_is_due(step):
      return False
    lines = metrics_lib.read(self.workdir, "eval") if hosts.is_first() else []
    return hosts.all_true(not hosts.is_first() or step not in [line["step"] for line in lines])

  def _learning_rates(self, step):
    """Of the groups of parameters that have their own."""
    lr = float(self.schedule(step))
    if not self.arch.prune_before:
      return {"lr": lr}
    return {"lr": lr, "lr_thresholds": lr * self.config.optimizer.thresholds_lr}

  def _values(self, state, values):
    values = _to_lists(parallel.unreplicate(values, self.config.parallel))
    if self.arch.prune_before:
      thresholds = parallel.unreplicate(state.params["thresholds"], self.config.parallel)
      values["thresholds"] = _to_lists(thresholds)
    return values

  def _check_finite(self, step, values):
    """Stops where too many steps in a row, up to this one, changed nothing."""
    if values is None:
      return
    values = parallel.unreplicate(values, self.config.parallel)
    if int(values["skipped"]) <= self.config.max_skipped_steps:
      return
    self.checkpoints.wait()
    terms = ", ".join(f"{k} {float(v):.4g}" for k, v in values.items() if np.ndim(v) == 0)
    raise DivergedError(
      f"the loss or its gradient is not finite for {int(values['skipped'])} steps in a row, up to "
      f"step {step} ({terms}); the last good checkpoint in {self.checkpoints.directory} is step "
      f"{self.checkpoints.latest_step}; lower optimizer.lr or set optimizer.clip_norm, in another "
      "--workdir"
    )

  def _evaluate(self, state, stop):
    """Evaluates the averaged weights, and the raw ones; returns top-1, None where told to stop."""
    step, results = int(state.step), {}
    weights = {"eval": state.ema, "eval_raw": state.params} if state.ema else {"eval": state.params}
    for kind, params in weights.items():
      results[kind] = evaluation.evaluate(
        self.eval_step, self.arch, params, self.config, self.eval_source, stopped=stop.noticed
      )
      if results[kind] is None:
        return None
    for kind, result in results.items():
      self._write(step, kind, result)
      name = {"eval": "evaluation", "eval_raw": "raw weights"}[kind]
      _log(f"step {step}/{self.steps}  {name}: {_describe(result)}")
    if self.arch.prune_before and hosts.is_first() and self.config.eval.pictures:
      sample = sources.Sample(self.eval_source, self.config.eval.pictures)
      figure = visualize.draw_tokens(self.arch, weights["eval"], self.config, sample)
      path = pathlib.Path(self.workdir) / "pictures" / f"tokens_{step:07}.png"
      visualize.save(figure, path)
    return results["eval"]["top1"]

  def _write(self, step, kind, values):
    if self.metrics is not None:
      self.metrics.write(step, kind, values)


def _program(config, arch, graphdef, teacher_graphdef, optimizer):
  """The step over all devices, and its objective."""
  objective = Objective(
    **config.loss,
    target_gmacs=config.budget and config.budget * complexity.dense_gmacs(arch),
    temperature=config.temperature,
    remat=config.model.remat,
  )
  step = make_step(
    graphdef,
    teacher_graphdef,
    objective,
    optimizer,
    config.label_smoothing,
    config.ema_decay,
    Mixing(**config.mix),
    config.seed,
    accumulate=config.accumulate,
    freeze=config.optimizer.freeze,
  )
  return parallel.parallelize(step, config.parallel), objective


def _log(message):
  if hosts.is_first():
    cli.log(message)


def _initial(config, arch):
  """The network to train, with its first parameters."""
  dtype = config.model.dtype
  graphdef, params = vit.split(vit.create(arch, seed=config.seed, dtype=dtype))
  if config.init_from:
    loaded = checkpoint.load_weights(
      arch, config.init_from, config.init_resize, config.init_new_head
    )
    params = params | loaded  # thresholds stay at their start where the weights are dense
  return graphdef, params


def _teacher(config, arch, params):
  """The frozen dense network with the same weights; (None, ()) for a dense student."""
  if not arch.prune_before:
    return None, ()
  graphdef, _ = vit.abstract(arch.dense, dtype=config.model.dtype)
  return graphdef, vit.without_thresholds(params)


def _calibrated(config, arch, params, source):
  sample = sources.Sample(source, calibration.MAX_IMAGES)
  batches = list(loader.eval_batches(config, sample))
  return calibration.calibrate(arch, params, batches, config.budget, config.model.dtype)


def _check_freeze(config, params):
  pattern = config.optimizer.freeze
  if pattern and not optimizer_lib.frozen(params, pattern):
    raise InputError(
      f"optimizer.freeze {pattern!r} is found in no parameter: names are like "
      "'blocks.0.attn.qkv.kernel'"
    )


def _progress(step, steps, rate, values, target):
  terms = " + ".join(
    f"{k} {values[k]:.4f}"
    for k in ("classification", "budget", "distillation", "token_distillation")
    if k in values
  )
  line = f"step {step}/{steps}  loss {values['loss']:.4f} ({terms})"
  if target is not None:
    thresholds = " ".join(f"{t:.5f}" for t in values["thresholds"])
    kept = " ".join(f"{k:.1f}" for k in values["kept"])
    line += f"  gmacs {values['gmacs']:.4f}/{target:.4f}  kept {kept}  thresholds {thresholds}"
  eta = cli.duration((steps - step) / rate)
  return line + f"  {values['images_per_s']:.0f} images/s  eta {eta}"


def _describe(result):
  kept = " ".join(f"{stage['mean']:.1f}" for stage in result["kept"])
  return (
    f"top-1 {result['top1']:.2f}  top-5 {result['top5']:.2f}  gmacs {result['gmacs']:.4f} "
    f"({result['share']:.3f} of dense)" + (f"  kept {kept}" if kept else "")
  )


def _to_lists(tree):
  return jax.tree.map(lambda x: np.asarray(x).tolist(), jax.device_get(tree))
