"""The training loop: data, step, evaluation, checkpoints, in one process on all its devices."""

import time

import jax
import numpy as np

from asvit_jax import calibration, checkpoint, cli, complexity, evaluation, vit
from asvit_jax import config as config_lib
from asvit_jax.data import loader, sources
from asvit_jax.training import metrics as metrics_lib
from asvit_jax.training import optimizer as optimizer_lib
from asvit_jax.training import parallel
from asvit_jax.training.step import Objective, create_state, make_step


def train(config, workdir):
  """Trains a network, or goes on with a run that stopped.

  Args:
    config: see `config.base`.
    workdir: gets `config.json`, `checkpoints/`, `metrics.jsonl` and `tensorboard/`.

  Returns:
    Dictionary: `workdir`, `step`, and the last evaluation.

  Raises:
    InputError: anything in the config, the data, the weights or the workdir that does not fit,
      before the first step where it can be known then.
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
    sources.check_images(images, config.data.check_images)
  config_lib.save(config, workdir)

  steps = config_lib.total_steps(config, len(source))
  optimizer, schedule = optimizer_lib.create(config, steps)
  checkpoints = checkpoint.Checkpoints(workdir)
  if checkpoints.latest_step is None:
    if arch.prune_before and config.thresholds == "calibrated":
      params = _calibrated(config, arch, params, source)
    state = create_state(params, optimizer, config.ema_decay)
  else:
    target = jax.eval_shape(lambda: create_state(params, optimizer, config.ema_decay))
    state = checkpoints.restore(target)
    cli.log(f"resuming {workdir} from step {int(state.step)} of {steps}")
  start = int(state.step)

  objective = Objective(
    **config.loss,
    target_gmacs=config.budget and config.budget * complexity.dense_gmacs(arch),
    temperature=config.temperature,
  )
  step = parallel.parallelize(
    make_step(
      graphdef, teacher_graphdef, objective, optimizer, config.label_smoothing, config.ema_decay
    )
  )
  eval_step = evaluation.make_eval_step(
    arch, "masked" if arch.prune_before else "dense", config.model.dtype
  )
  metrics = metrics_lib.Metrics(workdir, start)
  _announce(config, arch, params, source, eval_source, steps)

  def evaluate(state):
    weights = state.ema if config.ema_decay else state.params
    result = evaluation.evaluate(eval_step, arch, weights, config, eval_source)
    metrics.write(int(state.step), "eval", result)
    cli.log(f"step {int(state.step)}/{steps}  evaluation: {_describe(result)}")

  state, teacher_params = parallel.replicate(state), parallel.replicate(teacher_params)
  last, logged = time.perf_counter(), start
  batches = loader.train_batches(config, source, start_step=start) if start < steps else ()
  for i, batch in zip(range(start + 1, steps + 1), batches, strict=False):
    state, values = step(state, teacher_params, parallel.shard(batch))
    if i % config.log_every == 0 or i == steps:
      values = _to_lists(parallel.unreplicate(values))
      if arch.prune_before:
        values["thresholds"] = _to_lists(state.params["thresholds"][0])
      now = time.perf_counter()
      rate = (i - logged) / (now - last)
      values |= {"lr": float(schedule(i - 1)), "images_per_s": rate * config.batch_size}
      metrics.write(i, "train", values)
      cli.log(_progress(i, steps, rate, values, objective.target_gmacs))
      last, logged = now, i
    if i % config.eval.every == 0 or i == steps:
      evaluate(parallel.unreplicate(state))
    if i % config.checkpoint_every == 0 or i == steps:
      checkpoints.save(parallel.unreplicate(state))
      # Neither counts as training time.
    if i % config.eval.every == 0 or i % config.checkpoint_every == 0:
      last, logged = time.perf_counter(), i
  checkpoints.wait()
  return {"workdir": str(workdir), **metrics_lib.read(workdir, "eval")[-1]}


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


def _announce(config, arch, params, source, eval_source, steps):
  aim = "" if config.budget is None else f", aiming at {config.budget:g} of them"
  cli.log(
    f"{config.model.variant}: {vit.count_parameters(params):,} parameters, "
    f"{complexity.dense_gmacs(arch):.4f} GMACs dense{aim}\n"
    f"{config.data.name}: {len(source):,} images to train on, {len(eval_source):,} to evaluate on\n"
    f"{steps:,} steps of {config.batch_size} images on {jax.local_device_count()} "
    f"{jax.devices()[0].platform} device(s)"
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
