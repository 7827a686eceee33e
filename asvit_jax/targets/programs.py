"""The programs of a run and of inference, on shapes alone, for devices that are not here."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from asvit_jax import vit
from asvit_jax.config.model import architecture, preprocessing
from asvit_jax.core.devices import global_mesh
from asvit_jax.evaluation import one_pass
from asvit_jax.network import Network
from asvit_jax.sparsity import complexity, schedule
from asvit_jax.sparsity.complexity import check_budget
from asvit_jax.training.optimizers import building, groups
from asvit_jax.training.plan import step_shapes
from asvit_jax.training.program import make_program


@dataclasses.dataclass(frozen=True)
class Program:
  """Something to compile.

  Attributes:
    function: jitted or pmapped for its devices.
    arguments: of shapes.
    images: of a device.
    flops: floating-point operations of a device by the formula of `sparsity.complexity`: products
      of matrices alone, twice the multiply-accumulates.
    loops: whether the compiler's own count is of no use, as it counts what a loop repeats once, and
      of a switch not the branch that runs.
  """

  function: Any
  arguments: tuple
  images: int
  flops: float
  loops: bool


def untrained(config):
  """The `Network` that a config would train, with shapes in place of parameters.

  `init_from` is not read: where it and its weights disagree, only the run finds out.

  Raises:
    InputError: a budget that cannot be met, or a pattern that freezes what is not there.
  """
  arch = architecture(config)
  params = vit.specs(arch.dense if config.budget is None else arch)
  groups.check_frozen(params, config.optimizer.freeze)
  network = Network(
    arch, params, config.model.dtype, preprocessing(config), variant=config.model.variant
  )
  if config.budget is None:
    return network
  check_budget(arch, config.budget)
  if config.budget_range is None:
    return network
  budgets = schedule.budgets_of_range(*config.budget_range, config.budget)
  rows = jax.ShapeDtypeStruct((len(budgets), arch.stages), jnp.float32)
  return dataclasses.replace(network, params=params | {"thresholds": rows}, budgets=tuple(budgets))


def step(config, network, steps, devices):
  """A step of training, over all devices.

  Args:
    config: see `config.base`.
    network: of `untrained`.
    steps: of the whole run.
    devices: of `topology.devices`.
  """
  optimizer, _ = building.create(config, steps)
  function, _ = make_program(config, network, optimizer, devices)
  images = config.batch_size // len(devices)
  # The backward pass has two products for each of the forward pass.
  passes = 3 + network.prunes + config.model.remat
  passes += network.prunes and config.accumulate > 1  # the batch is measured before its parts run
  return Program(
    function,
    step_shapes(config, network, optimizer),
    images,
    images * passes * _flops(network.arch),
    loops=config.accumulate > 1,
  )


def evaluation(config, network, execution, devices):
  """The forward pass of an evaluation, over all devices, as `evaluate.py` and training run it.

  Args:
    config: see `config.base`; `eval.batch_size` and `budget` are read.
    network: of `untrained`.
    execution: a name of `EXECUTIONS`.
    devices: of `topology.devices`.
  """
  images = config.eval.batch_size // len(devices)
  function = one_pass.program(execution, global_mesh(devices))
  return Program(
    function,
    (network, _image_shape(network.arch, config.eval.batch_size)),
    images,
    images * forward_flops(network.arch, execution, config.budget),
    loops=execution == "packed",
  )


def inference(network, execution, batch, budget, device):
  """A forward pass of one device, as `Network` runs it.

  Args:
    network: a `Network`; its parameters may be shapes.
    execution: a name of `EXECUTIONS`.
    batch: images.
    budget: share of the dense GMACs, which the formula for packed and fixed execution counts.
    device: of `topology.devices`.
  """

  def forward(network, images):
    return network.for_execution(execution).apply(images, execution).logits

  here = SingleDeviceSharding(device)
  arguments = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    (network, _image_shape(network.arch, batch)),
  )
  flops = batch * forward_flops(network.arch, execution, budget)
  return Program(jax.jit(forward), arguments, batch, flops, loops=execution == "packed")


def forward_flops(arch, execution, budget):
  """FLOPs of an image: of all tokens, or, packed and fixed, of what the budget allows."""
  return _flops(arch) * (budget if execution in ("packed", "fixed") else 1.0)


def _flops(arch):
  """Of an image with all its tokens: what is really computed, see `sparsity.complexity`."""
  products = dataclasses.replace(arch, count_elementwise=False)
  tokens = np.full(arch.depth, float(arch.prefix_tokens + arch.patches))
  return 2e9 * float(complexity.gmacs_of_blocks(products, tokens, real=True))


def _image_shape(arch, count):
  return jax.ShapeDtypeStruct((count, *arch.image_shape), np.uint8)
