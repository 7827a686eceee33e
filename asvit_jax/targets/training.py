"""A run, compiled for a target: its step, its evaluation, and packed inference."""

from asvit_jax.config import rules
from asvit_jax.core.devices import precision
from asvit_jax.core.progress import log
from asvit_jax.data import sources
from asvit_jax.targets import account, fitting, programs, topology
from asvit_jax.targets.compiling import compile_for
from asvit_jax.training import plan
from asvit_jax.training.optimizers import building

# ImageNet-1k's images, for data that is not here.
ASSUMED = {"train": 1_281_167, "eval": 50_000}


def compile_run(config, target):
  """Compiles all that a run needs, and looks for the largest batch that fits.

  Args:
    config: see `config.base`.
    target: a `names.Target`.

  Returns:
    Dictionary: what `plan.plan` says; `target`; of the step what `account.compiled` says, with
    `fits` for all of the programs; `estimated_images_per_s` over all devices, where it fits;
    `largest_batch`, images a step over all devices, and `largest_batch_memory_mb`; and `programs`,
    {name: what `account.compiled` says}.

  Raises:
    InputError: a config that cannot work on so many devices, or a compiler that fails.
  """
  rules.check(config)
  with precision(config.model.precision):
    return _compile_run(config, target)


def _compile_run(config, target):
  building.check(config)
  network = programs.untrained(config)
  machine = {"devices": target.devices, "platform": target.chip.platform, "hosts": target.hosts}
  planned = plan.plan(config, network, *_images(config), machine)
  log(plan.describe(planned))
  devices, dtype = topology.devices(target), config.model.dtype
  built = {"step": programs.step(config, network, planned["steps"], devices)}
  executions = (
    {"evaluation": "masked", "packed": "packed"} if network.prunes else {"evaluation": "dense"}
  )
  for name, execution in executions.items():
    built[name] = programs.evaluation(config, network, execution, devices)
  results = {
    name: account.compiled(name, program, target, dtype) for name, program in built.items()
  }
  step = results["step"]
  largest = _largest(config, network, planned["steps"], devices, target, step)
  log(
    f"the largest batch_size that fits {target.name}: {largest['largest_batch']:,}"
    if largest["largest_batch"]
    else f"no batch_size fits {target.name}: try model.remat=True or accumulate"
  )
  if step["fits"]:
    seconds = step["estimated_ms"] / 1e3
    largest["estimated_images_per_s"] = config.batch_size / seconds
  fits = all(result["fits"] for result in results.values())
  return planned | {"target": target.name} | step | largest | {"fits": fits, "programs": results}


def _images(config):
  """The images to train and to evaluate on, or as many places for them as ImageNet has."""
  if config.data.dir or config.data.name == "digits":
    splits = config.data.train_split, config.data.eval_split
    return [sources.open_source(config.data, split) for split in splits]
  log("data.dir is empty: the numbers of images are ImageNet's")
  return [range(ASSUMED["train"]), range(ASSUMED["eval"])]


def _largest(config, network, steps, devices, target, step):
  """The largest batch size that fits, see `fitting.largest_batch`."""

  def memory_of(images):
    other = config.copy_and_resolve_references()
    other.batch_size = images
    program = programs.step(other, network, steps, devices)
    return compile_for(target.chip, program.function, program.arguments).memory

  pairs = 2 if config.mix.mixup or config.mix.cutmix else 1
  unit = len(devices) * config.accumulate * pairs
  known = {config.batch_size: step["memory_mb"] * 2**20}
  return fitting.largest_batch(memory_of, target.chip.memory, unit, known)
