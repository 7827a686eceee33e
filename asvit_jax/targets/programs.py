"""Compiles the programs of a training run, or of inference, for devices that are not here.

`compile_run` and `compile_inference` do the work, in the process of `process.run`. Programs need
only the shapes of images and parameters, neither data nor weights.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from asvit_jax import vit
from asvit_jax.core.devices import global_mesh, precision
from asvit_jax.core.progress import log
from asvit_jax.data import sources
from asvit_jax.evaluation import one_pass
from asvit_jax.network import Network
from asvit_jax.optimizers import building, groups
from asvit_jax.sparsity import complexity, schedule
from asvit_jax.sparsity.complexity import check_budget
from asvit_jax.targets import compiling
from asvit_jax.training import summary
from asvit_jax.training.opening import check_kernels
from asvit_jax.training.step import make_program
from asvit_jax.training.summary import step_shapes

# Images of ImageNet-1k, if the plan names no data.
ASSUMED = {"train": 1_281_167, "eval": 50_000}


@dataclasses.dataclass(frozen=True)
class Program:
  """A program to compile.

  Attributes:
    function: the function, jitted or pmapped for its devices.
    arguments: its arguments, trees of `jax.ShapeDtypeStruct`.
    images: images per device.
    flops: floating-point operations of a device, by the formula of `sparsity.complexity`: those of
      matrix products only, twice the multiply-accumulates.
    loops: whether the compiler's count of operations is useless, because it counts the body of a
      loop once, and not the branch of a switch that runs.
  """

  function: Any
  arguments: tuple
  images: int
  flops: float
  loops: bool


def compile_run(plan, target):
  """Compiles the step and the evaluations of a run, and finds the largest batch that fits.

  Args:
    plan: a `Plan`.
    target: a `chips.Target`.

  Returns:
    The dictionaries of `summary.summarize` and, for the step, of `compiling.account_for`, with
    `target`; `fits`, whether all programs fit; `estimated_images_per_s`, over all devices, if the
    step fits; `largest_batch`, images per step over all devices, and `largest_batch_memory_mb`; and
    `programs`, {name: dictionary of `compiling.account_for`}.

  Raises:
    InputError: the config cannot work on so many devices, or the compiler fails.
  """
  with precision(plan.model.precision):
    return _compile_run(plan, target)


def _compile_run(plan, target):
  network, images = untrained(plan), _images(plan)
  check_kernels(plan, network.arch, target.chip.platform)
  plan = plan.of_images(len(images[0])).of_network(network.arch, network.preprocessing)
  machine = {"devices": target.devices, "platform": target.chip.platform, "hosts": target.hosts}
  counted = summary.summarize(plan, network, *images, machine)
  log(summary.describe(counted))
  devices, dtype = compiling.devices(target), plan.model.dtype
  built = {"step": step_program(plan, network, devices)}
  executions = (
    {"evaluation": "masked", "packed": "packed"} if network.prunes else {"evaluation": "dense"}
  )
  for name, execution in executions.items():
    built[name] = evaluation_program(plan, network, execution, devices)
  results = {
    name: compiling.account_for(name, program, target, dtype) for name, program in built.items()
  }
  step = results["step"]
  largest = _largest(plan, network, devices, target, step)
  log(
    f"the largest batch_size that fits {target.name}: {largest['largest_batch']:,}"
    if largest["largest_batch"]
    else f"no batch_size fits {target.name}: try model.remat=True or accumulate"
  )
  if step["fits"]:
    seconds = step["estimated_ms"] / 1e3
    largest["estimated_images_per_s"] = plan.batch_size / seconds
  fits = all(result["fits"] for result in results.values())
  return counted | {"target": target.name} | step | largest | {"fits": fits, "programs": results}


def _images(plan):
  """The sources of training and evaluation images; ranges of ImageNet's lengths without data."""
  if plan.data.dir or plan.data.name == "digits":
    splits = plan.data.train_split, plan.data.eval_split
    return [sources.open_source(plan.data, split) for split in splits]
  log("data.dir is empty: assuming the numbers of images of ImageNet-1k")
  return [range(ASSUMED["train"]), range(ASSUMED["eval"])]


def _largest(plan, network, devices, target, step):
  """The largest batch size that fits: the dictionary of `compiling.largest_batch`."""

  def memory_of(images):
    program = step_program(plan.replace(batch_size=images), network, devices)
    return compiling.compile_for(target.chip, program.function, program.arguments).memory

  pairs = 2 if plan.mix.mixup or plan.mix.cutmix else 1
  unit = len(devices) * plan.accumulate * pairs
  known = {plan.batch_size: step["memory_mb"] * 2**20}
  return compiling.largest_batch(memory_of, target.chip.memory, unit, known)


def compile_inference(target, arch, variant, dtype, budget, batch, executions):
  """Compiles executions of a network for one device, and finds the largest batch that fits.

  Args:
    target: a `chips.Target`.
    arch: an `Architecture` that prunes.
    variant: name of the architecture.
    dtype: compute type, "float32" or "bfloat16".
    budget: share of the dense GMACs that packed, flat and fixed execution compute.
    batch: number of images.
    executions: names in `EXECUTIONS`.

  Returns:
    The dictionary of `compiling.account_for` for the last execution, with `target`; `fits`, whether
    all executions fit; `estimated_images_per_s`, if the last one fits; `largest_batch` and
    `largest_batch_memory_mb`; and `results`, {execution: dictionary of `compiling.account_for`}.

  Raises:
    InputError: the budget cannot be met, or the compiler fails.
  """
  scheduled = schedule.with_stage_weights(arch, budget)
  ratio = complexity.uniform_ratio(scheduled, complexity.target_gmacs(arch, budget))
  fixed = [schedule.uniform_counts(scheduled, ratio)]
  network = Network(arch, vit.specs(arch), dtype, variant=variant, counts=fixed)
  device = compiling.devices(target)[0]

  def program(execution, images=batch):
    return inference_program(network, execution, images, budget, device)

  results = {name: compiling.account_for(name, program(name), target, dtype) for name in executions}
  last = executions[-1]
  chosen = results[last]

  def memory_of(images):
    other = program(last, images)
    return compiling.compile_for(target.chip, other.function, other.arguments).memory

  largest = compiling.largest_batch(
    memory_of, target.chip.memory, 1, {batch: chosen["memory_mb"] * 2**20}
  )
  if chosen["fits"]:
    largest["estimated_images_per_s"] = 1e3 * batch / chosen["estimated_ms"]
  fits = all(result["fits"] for result in results.values())
  return {"target": target.name} | chosen | largest | {"fits": fits, "results": results}


def untrained(plan):
  """The `Network` that a plan would train, with shapes in place of parameters.

  `init_from` is not read, so weights that do not fit the config are only found by the run itself.

  Args:
    plan: a `Plan`.

  Raises:
    InputError: the budget cannot be met, or a pattern of `optimizer.freeze` matches no parameter.
  """
  arch = plan.arch
  params = vit.specs(arch.dense if plan.budget is None else arch)
  groups.check_frozen(params, plan.optimizer.freeze)
  network = Network(arch, params, plan.model.dtype, plan.preprocessing, variant=plan.model.variant)
  if plan.budget is None:
    return network
  check_budget(arch, plan.budget)
  if plan.budget_range is None:
    return network
  budgets = schedule.budgets_of_range(*plan.budget_range, plan.budget)
  rows = jax.ShapeDtypeStruct((len(budgets), arch.stages), jnp.float32)
  return dataclasses.replace(network, params=params | {"thresholds": rows}, budgets=tuple(budgets))


def step_program(plan, network, devices):
  """The `Program` of a training step, over all devices.

  Args:
    plan: a `Plan`.
    network: the `Network` of `untrained`.
    devices: devices of `compiling.devices`.
  """
  optimizer = building.create(plan.optimizer, plan.schedule)
  function, _ = make_program(plan, network, optimizer, devices)
  images = plan.batch_size // len(devices)
  # The backward pass has two matrix products for each one of the forward pass.
  passes = 3 + network.prunes + plan.model.remat
  passes += network.prunes and plan.accumulate > 1  # first, the cost of the whole batch
  return Program(
    function,
    step_shapes(plan, network, optimizer),
    images,
    images * passes * _flops(network.arch),
    loops=plan.accumulate > 1,
  )


def evaluation_program(plan, network, execution, devices):
  """The `Program` of an evaluation's forward pass, over all devices.

  Args:
    plan: a `Plan`; `eval.batch_size` and `budget` are read.
    network: the `Network` of `untrained`.
    execution: name in `EXECUTIONS`.
    devices: devices of `compiling.devices`.
  """
  images = plan.eval.batch_size // len(devices)
  function = one_pass.program(execution, global_mesh(devices))
  return Program(
    function,
    (network.for_execution(execution), _image_shape(network.arch, plan.eval.batch_size)),
    images,
    images * forward_flops(network.arch, execution, plan.budget),
    loops=execution in ("packed", "flat"),
  )


def inference_program(network, execution, batch, budget, device):
  """The `Program` of a forward pass on one device, as `Network` runs it.

  Args:
    network: a `Network`; its parameters may be shapes.
    execution: name in `EXECUTIONS`.
    batch: number of images.
    budget: share of the dense GMACs that the formula counts for packed, flat and fixed.
    device: one of `compiling.devices`.
  """

  def forward(network, images):
    return network.apply(images, execution).logits

  here = SingleDeviceSharding(device)
  arguments = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    (network.for_execution(execution), _image_shape(network.arch, batch)),
  )
  flops = batch * forward_flops(network.arch, execution, budget)
  return Program(jax.jit(forward), arguments, batch, flops, loops=execution in ("packed", "flat"))


def forward_flops(arch, execution, budget):
  """FLOPs per image by the formula: of all tokens, or of a share `budget` if tokens are removed."""
  return _flops(arch) * (budget if execution in ("packed", "flat", "fixed") else 1.0)


def _flops(arch):
  """FLOPs of an image with all its tokens, as computed, see `sparsity.complexity`."""
  products = dataclasses.replace(arch, count_elementwise=False)
  tokens = np.full(arch.depth, float(arch.prefix_tokens + arch.patches))
  return 2e9 * float(complexity.gmacs_of_blocks(products, tokens, real=True))


def _image_shape(arch, count):
  return jax.ShapeDtypeStruct((count, *arch.image_shape), np.uint8)
