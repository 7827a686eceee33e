"""What a run would be, known before it begins."""

import math

import jax
import numpy as np

from asvit_jax.config import parts as config_parts
from asvit_jax.config.length import total_steps
from asvit_jax.core import devices, leaves
from asvit_jax.data import sources
from asvit_jax.run import identity, layout
from asvit_jax.run import inputs as inputs_lib
from asvit_jax.sparsity.complexity import target_gmacs
from asvit_jax.training import averaging, parallel
from asvit_jax.training.optimizers.groups import is_frozen
from asvit_jax.training.schedule import learning_rate, warmup_steps
from asvit_jax.training.step import state_shapes

_MUCH = 0.1  # of the initial weights, in an average that is meant to be of trained ones
# Of the loss: where keeping all tokens costs less, the other terms decide how many are kept. The
# paper's weight, 2 a GMAC, makes it 3.2 for DeiT-S at 65 %.
_LITTLE = 0.1


def plan(config, network, source, eval_source, machine=None):
  """Counts what a run of a config would do.

  Args:
    config: see `config.base`.
    network: the `Network` it trains.
    source: images to train on.
    eval_source: images to evaluate on.
    machine: dictionary of `devices`, `platform` and `hosts` of another machine that it would run
      on; by default this one's.

  Returns:
    Dictionary: `variant`, `parameters`, `gmacs_dense`, `gmacs_target` (None for a dense network);
    `data`, `images`, `eval_images`, `notes` about them; `devices`, `platform`, `hosts`,
    `batch_size`, `batch_a_device`, `accumulate`; `steps`, `warmup_steps`, `lr_peak`, `lr_end`,
    `evaluations`, `checkpoints`; `ema_initial_share`, how much of the first weights the averaged
    ones still hold at the end, None where none are averaged; `budget_loss_unpruned`, what keeping
    all tokens adds to the loss, None where no threshold is trained towards a budget.
  """
  steps = total_steps(config, len(source))
  warmup = warmup_steps(config, steps)
  every = config.eval.every, config.checkpoint_every
  evaluations, saves = ((steps - 1) // count for count in every)
  both = (steps - 1) // math.lcm(*every)
  schedule = learning_rate(config, steps)
  machine = machine or {
    "devices": jax.device_count(),
    "platform": jax.devices()[0].platform,
    "hosts": jax.process_count(),
  }
  return {
    "variant": config.model.variant,
    "parameters": leaves.count(network.params),
    "gmacs_dense": network.dense_gmacs,
    "gmacs_target": target_gmacs(network.arch, config.budget),
    "data": config.data.name,
    "images": len(source),
    "eval_images": len(eval_source),
    "notes": sources.notes(source, eval_source),
    **machine,
    "batch_size": config.batch_size,
    "batch_a_device": config.batch_size // machine["devices"],
    "accumulate": config.accumulate,
    "steps": steps,
    "warmup_steps": warmup,
    "lr_peak": float(schedule(warmup)),
    "lr_end": float(schedule(steps)),
    "evaluations": evaluations + 1,  # and one at the end; every evaluation is saved, too
    "checkpoints": evaluations + saves - both + 1,
    "ema_initial_share": averaging.initial_share(steps, config.ema_decay, config.ema_warmup)
    if config.ema_decay
    else None,
    "budget_loss_unpruned": _budget_loss_unpruned(config, network),
  }


def _budget_loss_unpruned(config, network):
  """The budget's term, weighted, while nothing is pruned; see `losses.budget`."""
  held = is_frozen("thresholds", config.optimizer.freeze) or not config.optimizer.thresholds_lr
  if config.budget in (None, 1) or held:
    return None
  return config.loss.budget * (network.dense_gmacs - target_gmacs(network.arch, config.budget))


def describe(plan):
  """A plan in words."""
  aim = ""
  if plan["gmacs_target"] is not None:
    aim = f", aiming at {plan['gmacs_target']:.4f}"
  parts = "" if plan["accumulate"] == 1 else f" in {plan['accumulate']} parts"
  return (
    f"{plan['variant']}: {plan['parameters']:,} parameters, "
    f"{plan['gmacs_dense']:.4f} GMACs dense{aim}\n"
    f"{plan['data']}: {plan['images']:,} images to train on, "
    f"{plan['eval_images']:,} to evaluate on\n"
    f"{plan['steps']:,} steps of {plan['batch_size']} images: {plan['batch_a_device']} on each of "
    f"{plan['devices']} {plan['platform']} device(s) of {plan['hosts']} host(s){parts}\n"
    f"learning rate {plan['lr_peak']:.3g} after {plan['warmup_steps']:,} steps of warm-up, "
    f"{plan['lr_end']:.3g} at the end; {plan['evaluations']:,} evaluations, "
    f"{plan['checkpoints']:,} checkpoints"
    + _describe_average(plan["ema_initial_share"])
    + _describe_budget(plan)
  )


def describe_extension(config, workdir):
  """How a config makes the run in a workdir longer, in a line; None where it does not."""
  if not layout.is_run(workdir):
    return None
  before, inputs = identity.load(workdir, config_parts.own(config)), inputs_lib.read(workdir)
  if inputs is None:  # a run from before its images were counted
    return None
  was, now = (total_steps(c, inputs["images"]) for c in (before, config))
  if was == now:
    return None
  rates = [learning_rate(before, was)(was), learning_rate(config, now)(was)]
  old, new = (f"{float(rate):.3g}" for rate in rates)
  return (
    f"extended from {was:,} to {now:,} steps: the learning rate of step {was:,} was {old}, and is "
    f"{new} by the schedule now (--config.optimizer.decay_steps={was} keeps the one there was, and "
    f"stays at {old})"
  )


def _describe_average(share):
  """A line on the averaged weights, where there are some."""
  if share is None:
    return ""
  left = "less than 0.01" if share < 1e-4 else f"{100 * share:.2g}"
  line = f"\naveraged weights: {left} % of the initial ones is left in them at the end"
  if share < _MUCH:
    return line
  return (
    f"{line}: WARNING: that is much; set ema_warmup or a smaller ema_decay, or use --weights-of raw"
  )


def _describe_budget(plan):
  """A line on the budget's weight in the loss, where it is too small to be felt."""
  loss = plan["budget_loss_unpruned"]
  if loss is None or loss >= _LITTLE:
    return ""
  weight = 1 / (plan["gmacs_dense"] - plan["gmacs_target"])
  return (
    f"\nbudget: WARNING: keeping every token adds {loss:.2g} to the loss, too little to be "
    f"felt: --config.loss.budget weighs one GMAC, and this network has few; {weight:.2g} makes it 1"
  )


def memory_mb(config, program, network, optimizer):
  """MiB that a step takes on a device, by the compiler's account; None where it gives none.

  Args:
    config: see `config.base`.
    program: of `parallel.parallelize`.
    network: the `Network` it trains.
    optimizer: an optax optimizer.
  """
  shapes = step_shapes(config, network, optimizer)
  return devices.memory_mb(program.lower(*shapes).compile())


def step_shapes(config, network, optimizer):
  """The arguments of the program of a step, for this host, as `jax.ShapeDtypeStruct`s.

  Args:
    config: see `config.base`.
    network: the `Network` it trains; its parameters may be shapes, too.
    optimizer: an optax optimizer.
  """
  state = state_shapes(network.params, optimizer, config.ema_decay)
  teacher_params = network.dense.params if network.prunes else ()
  batch = {
    "image": jax.ShapeDtypeStruct((config.batch_size, *network.arch.image_shape), np.uint8),
    "label": jax.ShapeDtypeStruct((config.batch_size,), np.int32),
  }
  return parallel.shapes(state, teacher_params, batch, config.parallel)
