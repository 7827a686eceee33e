"""A summary of a run before it begins: steps, images, memory, compute."""

import math

import jax
import numpy as np

from asvit_jax.core import devices, leaves
from asvit_jax.data import sources
from asvit_jax.optimizers.groups import is_frozen
from asvit_jax.training import parallel
from asvit_jax.training.step import initial_share, state_shapes

_MUCH = 0.1  # share of the initial weights in the averaged ones that is worth a warning
# Budget loss of the unpruned network below which the other terms decide how many tokens are kept.
# With the paper's weight, 2 per GMAC, it is 3.2 for DeiT-S at 65 %.
_LITTLE = 0.1


def summarize(plan, network, source, eval_source, machine=None):
  """Counts the steps, images, evaluations and checkpoints of a run, and its compute.

  Args:
    plan: a `Plan`, complete.
    network: the `Network` it trains.
    source: images to train on.
    eval_source: images to evaluate on.
    machine: dictionary of `devices`, `platform` and `hosts` of the machine to run on; this machine
      by default.

  Returns:
    Dictionary: `variant`, `parameters`, `gmacs_dense`, `gmacs_target` (None for a dense network);
    `data`, `images`, `eval_images`, `notes` about them; `devices`, `platform`, `hosts`,
    `batch_size`, `batch_a_device`, `accumulate`; `steps`, `warmup_steps`, `lr_peak`, `lr_end`,
    `evaluations`, `checkpoints`; `ema_initial_share`, the share of the initial weights in the
    averaged ones at the end, None without averaging; `budget_loss_unpruned`, the budget term of the
    loss while all tokens are kept, None if no thresholds are trained.
  """
  steps, schedule = plan.steps, plan.schedule
  every = plan.eval.every, plan.checkpoint_every
  evaluations, saves = ((steps - 1) // count for count in every)
  both = (steps - 1) // math.lcm(*every)
  machine = machine or {
    "devices": jax.device_count(),
    "platform": jax.devices()[0].platform,
    "hosts": jax.process_count(),
  }
  return {
    "variant": plan.model.variant,
    "parameters": leaves.count(network.params),
    "gmacs_dense": network.dense_gmacs,
    "gmacs_target": plan.target_gmacs,
    "data": plan.data.name,
    "images": len(source),
    "eval_images": len(eval_source),
    "notes": sources.notes(source, eval_source),
    **machine,
    "batch_size": plan.batch_size,
    "batch_a_device": plan.batch_size // machine["devices"],
    "accumulate": plan.accumulate,
    "steps": steps,
    "warmup_steps": schedule.warmup_steps,
    "lr_peak": float(schedule(schedule.warmup_steps)),
    "lr_end": float(schedule(steps)),
    "evaluations": evaluations + 1,  # and one at the end; every evaluation is saved, too
    "checkpoints": evaluations + saves - both + 1,
    "ema_initial_share": initial_share(steps, plan.ema_decay, plan.ema_warmup)
    if plan.ema_decay
    else None,
    "budget_loss_unpruned": _budget_loss_unpruned(plan, network),
  }


def _budget_loss_unpruned(plan, network):
  """The weighted budget term of the loss while all tokens are kept; see `losses.terms.Budget`."""
  fixed = is_frozen("thresholds", plan.optimizer.freeze) or not plan.optimizer.thresholds_lr
  if plan.budget in (None, 1) or fixed:
    return None
  return plan.loss["budget"] * (network.dense_gmacs - plan.target_gmacs)


def describe(counts):
  """The result of `summarize` as lines of text."""
  aim = ""
  if counts["gmacs_target"] is not None:
    aim = f", aiming at {counts['gmacs_target']:.4f}"
  parts = "" if counts["accumulate"] == 1 else f" in {counts['accumulate']} parts"
  return (
    f"{counts['variant']}: {counts['parameters']:,} parameters, "
    f"{counts['gmacs_dense']:.4f} GMACs dense{aim}\n"
    f"{counts['data']}: {counts['images']:,} images to train on, "
    f"{counts['eval_images']:,} to evaluate on\n"
    f"{counts['steps']:,} steps of {counts['batch_size']} images: "
    f"{counts['batch_a_device']} on each of {counts['devices']} {counts['platform']} "
    f"device(s) of {counts['hosts']} host(s){parts}\n"
    f"learning rate {counts['lr_peak']:.3g} after {counts['warmup_steps']:,} steps of warm-up, "
    f"{counts['lr_end']:.3g} at the end; {counts['evaluations']:,} evaluations, "
    f"{counts['checkpoints']:,} checkpoints"
    + _describe_average(counts["ema_initial_share"])
    + _describe_budget(counts)
  )


def _describe_average(share):
  """A line about the averaged weights; "" without averaging."""
  if share is None:
    return ""
  left = "less than 0.01" if share < 1e-4 else f"{100 * share:.2g}"
  line = f"\naveraged weights: {left} % of the initial weights is left in them at the end"
  if share < _MUCH:
    return line
  return (
    f"{line}: WARNING: this is a lot; set ema_warmup or a smaller ema_decay, or use --weights-of "
    "raw"
  )


def _describe_budget(counted):
  """A warning if the weight of the budget in the loss is too small to matter; else ""."""
  loss = counted["budget_loss_unpruned"]
  if loss is None or loss >= _LITTLE:
    return ""
  weight = 1 / (counted["gmacs_dense"] - counted["gmacs_target"])
  return (
    f"\nbudget: WARNING: keeping every token adds only {loss:.2g} to the loss, too little to "
    "matter: --config.loss.budget is the weight of one GMAC, and this network has few; "
    f"{weight:.2g} would make it 1"
  )


def memory_mb(plan, program, network, optimizer):
  """MiB that a step takes on a device, as the compiler reports; None if it reports nothing.

  Args:
    plan: a `Plan`.
    program: a program of `parallel.parallelize`.
    network: the `Network` it trains.
    optimizer: an optax optimizer.
  """
  shapes = step_shapes(plan, network, optimizer)
  return devices.memory_mb(program.lower(*shapes).compile())


def step_shapes(plan, network, optimizer):
  """The arguments of the training program on this host, as `jax.ShapeDtypeStruct`s.

  Args:
    plan: a `Plan`.
    network: the `Network` it trains; its parameters may be shapes, too.
    optimizer: an optax optimizer.
  """
  state = state_shapes(network.params, optimizer, plan.ema_decay)
  teacher_params = network.dense.params if network.prunes else ()
  batch = {
    "image": jax.ShapeDtypeStruct((plan.batch_size, *network.arch.image_shape), np.uint8),
    "label": jax.ShapeDtypeStruct((plan.batch_size,), np.int32),
  }
  return parallel.shapes(state, teacher_params, batch, plan.parallel)
