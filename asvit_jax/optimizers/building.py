"""Optimizers: those of optax and your own, with what surrounds them.

An optimizer is a function of `learning_rate`, a schedule, and of what `optimizer.arguments` may
give it by name; it returns an `optax.GradientTransformation` that needs no more than gradients and
parameters. Where it takes `weight_decay` and a `mask`, it gets them.

The tests know those of the table. Any other of optax goes by its name there, and what is in one of
its packages, or yours, by `package.module:object`: `optax.contrib:muon`.
"""

import inspect

import jax
import numpy as np
import optax

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.parts import Table
from asvit_jax.core.printable import shown
from asvit_jax.optimizers import groups
from asvit_jax.optimizers.schedule import Schedule

OPTIMIZERS = Table(
  "optimizer",
  "optimizer.name",
  {
    "adamw": "optax:adamw",
    "lamb": "optax:lamb",
    "lion": "optax:lion",
    "sgd": "optax:sgd",
  },
)

# Names of keyword arguments that are set here, in the words of optax.
_MASKS = ("mask", "weight_decay_mask")
_OURS = {
  "learning_rate": "optimizer.lr is its key",
  "weight_decay": "optimizer.weight_decay is its key",
  "weight_decay_rate": "optimizer.weight_decay is its key",
  "mask": "kernels alone decay",
  "weight_decay_mask": "kernels alone decay",
}

# Every kind of parameter that a network has, small.
_TRIED_ON = vit.Architecture(
  width=4, heads=2, depth=2, mlp_ratio=2, image_size=4, patch_size=2, classes=2, prune_before=(1,)
)


def create(options, schedule):
  """The optimizer of a plan: it clips, descends, and leaves frozen parameters where they are.

  Args:
    options: `Plan.optimizer`.
    schedule: learning rate, a number or a function of the step: `Plan.schedule`.

  Returns:
    An `optax.GradientTransformation`.

  Raises:
    InputError: as `build`.
  """
  stages = [build(options.name, schedule, options.weight_decay, **options.arguments)]
  if options.clip_norm:
    stages.insert(0, groups.clipped(options.clip_norm, options.freeze))
  if options.thresholds_lr != 1 or options.freeze or options.layer_decay != 1:
    stages.append(groups.scaled(options.thresholds_lr, options.freeze, options.layer_decay))
  return optax.chain(*stages)


def updates_done(opt_state):
  """How many steps have changed anything: where the learning rate is in its schedule.

  Steps that were skipped, their loss not being finite, do not count.

  Args:
    opt_state: of an optimizer of `create`.

  Returns:
    () int32; None where the optimizer keeps no count of its own for its schedule.
  """

  def is_count(x):
    return isinstance(x, optax.ScaleByScheduleState)

  leaves = jax.tree.leaves(opt_state, is_leaf=is_count)
  return next((x.count for x in leaves if is_count(x)), None)


def build(name, learning_rate, weight_decay, /, **arguments):
  """An optimizer that decays kernels alone and leaves key biases where they are.

  One that knows weight decay and a mask decays in its own way: AdamW, Lion and LAMB beside the
  gradient. For any other, the decay is added to the gradient, as PyTorch's SGD and Adam do it: with
  plain SGD that is the same; with momentum, or Adam's scaling, the decay goes through these too.

  Args:
    name: of `OPTIMIZERS`, of a function of optax, or `package.module:object`.
    learning_rate: a number, or a function of the step.
    weight_decay: share of a kernel, times the learning rate, that a step takes away.
    **arguments: of the optimizer, besides.

  Returns:
    An `optax.GradientTransformation`.

  Raises:
    InputError: an unknown name, what is no optimizer, or arguments that it does not take.
  """
  function, parameters = _resolve(name)
  _check_arguments(name, parameters, arguments)
  mask = next((key for key in _MASKS if key in parameters), None)
  stages = [groups.without_key_biases()]
  if "weight_decay" in parameters and mask:
    arguments |= {"weight_decay": weight_decay, mask: groups.decay_mask}
  else:
    stages.append(optax.add_decayed_weights(weight_decay, groups.decay_mask))
    if "weight_decay" in parameters:  # of all parameters alike, thresholds too
      arguments |= {"weight_decay": 0.0}
  try:
    stages.append(function(learning_rate, **arguments))
    return optax.chain(*stages)
  except Exception as error:  # there is no saying what a value that does not fit raises
    raise InputError(
      f"optimizer.name {shown(name)} cannot be made with these arguments ({_said(error)}): check "
      "optimizer.arguments, or choose another"
    ) from error


def check(options):
  """Raises InputError unless a step can run the optimizer of a plan; it is tried on shapes."""
  optimizer = create(options, Schedule(1e-3, 1e-3, 0, 1))
  name, params = options.name, vit.specs(_TRIED_ON)
  try:
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
  except Exception as error:  # as above
    raise InputError(
      f"optimizer.name {shown(name)} cannot be used here ({_said(error)}): the step gives it "
      "gradients and parameters, and no more; choose another"
    ) from error
  if _shapes(updates) != _shapes(params) or _shapes(after) != _shapes(state):
    raise InputError(
      f"optimizer.name {shown(name)} cannot be used here: its updates differ from the parameters "
      "in shape or type, or its state does not keep its own; choose another"
    )
  if not all(isinstance(leaf.dtype, np.dtype) for leaf in jax.tree.leaves(state)):
    raise InputError(
      f"optimizer.name {shown(name)} cannot be used here: its state is not of numbers alone, as a "
      "checkpoint is; choose another"
    )


def _resolve(name):
  """The function of that name, and the names of its parameters."""
  if name in OPTIMIZERS or ":" in name:
    function = OPTIMIZERS[name]
  elif name.isidentifier() and callable(getattr(optax, name, None)):
    function = getattr(optax, name)
  else:
    raise InputError(
      f"optimizer.name {shown(name)} is not known: choose from {', '.join(OPTIMIZERS.names)}, any "
      f"other of optax, or give your own as package.module:object{hint(name, _of_optax())}"
    )
  try:
    parameters = inspect.signature(function).parameters
  except (TypeError, ValueError) as error:
    raise InputError(f"optimizer.name {shown(name)} is no function: {error}") from error
  if next(iter(parameters), None) != "learning_rate":
    raise InputError(
      f"optimizer.name {shown(name)} is no optimizer: its first argument is not learning_rate"
    )
  return function, parameters


def _check_arguments(name, parameters, arguments):
  """Raises InputError for arguments that are not to be set, or that an optimizer does not take."""
  for key in arguments:
    if key in _OURS:
      raise InputError(f"optimizer.arguments sets {key}: {_OURS[key]}")
  free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
  unknown = [key for key in arguments if key not in parameters and not free]
  if unknown:
    taken = ", ".join(key for key in parameters if key not in _OURS) or "none"
    raise InputError(
      f"optimizer.arguments: {', '.join(unknown)} is not known to optimizer {shown(name)}; it "
      f"takes {taken}{hint(unknown[0], [key for key in parameters if key not in _OURS])}"
    )


def _of_optax():
  """Names of what could be an optimizer there."""
  return [*OPTIMIZERS.names, *(n for n in dir(optax) if n.islower() and not n.startswith("_"))]


def _shapes(tree):
  return jax.tree.structure(tree), [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _said(error):
  return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
