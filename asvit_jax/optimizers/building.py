"""Creates optimizers: optax's or your own, with weight decay, clipping and frozen parameters.

An optimizer is a function whose first argument is `learning_rate`, a schedule. Its other keyword
arguments are `optimizer.arguments`. It returns an `optax.GradientTransformation` whose update needs
only gradients and parameters. If it takes `weight_decay` and a `mask`, both are set here.

The optimizers of the table are tested. Any other function of optax is given by its name, and one of
a subpackage, or your own, as `package.module:object`: `optax.contrib:ademamix`.
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
    "muon": "optax.contrib:muon",
    "sgd": "optax:sgd",
  },
)

# Keyword arguments of optax's optimizers that are set here, not by `optimizer.arguments`.
_MASKS = ("mask", "weight_decay_mask")
_OURS = {
  "learning_rate": "optimizer.lr is its key",
  "weight_decay": "optimizer.weight_decay is its key",
  "weight_decay_rate": "optimizer.weight_decay is its key",
  "mask": "only kernels decay",
  "weight_decay_mask": "only kernels decay",
}

# A small network with every kind of parameter, on whose shapes optimizers are tried.
_TRIED_ON = vit.Architecture(
  width=4, heads=2, depth=2, mlp_ratio=2, image_size=4, patch_size=2, classes=2, prune_before=(1,)
)


def create(options, schedule):
  """The optimizer of a plan, including gradient clipping, layer-wise decay and frozen parameters.

  Args:
    options: `Plan.optimizer`.
    schedule: learning rate, a number or a function of the step, such as `Plan.schedule`.

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
  """The number of updates so far, which selects the learning rate; skipped steps do not count.

  Args:
    opt_state: state of an optimizer of `create`.

  Returns:
    () int32; None if the optimizer has no counter for its schedule.
  """

  def is_count(x):
    return isinstance(x, optax.ScaleByScheduleState)

  leaves = jax.tree.leaves(opt_state, is_leaf=is_count)
  return next((x.count for x in leaves if is_count(x)), None)


def build(name, learning_rate, weight_decay, /, **arguments):
  """An optimizer that applies weight decay only to kernels, and does not train key biases.

  An optimizer that takes weight decay and a mask decays in its own way: AdamW, Lion and LAMB use
  decoupled weight decay. For any other, the decay is added to the gradient, as in PyTorch's SGD and
  Adam. With plain SGD this is the same; otherwise momentum, or Adam's scaling, also applies to it.

  Args:
    name: a name of `OPTIMIZERS`, a function of optax, or `package.module:object`.
    learning_rate: a number, or a function of the step.
    weight_decay: share of a kernel, times the learning rate, that a step subtracts.
    **arguments: other keyword arguments of the optimizer.

  Returns:
    An `optax.GradientTransformation`.

  Raises:
    InputError: an unknown name, a function that is not an optimizer, or invalid arguments.
  """
  function, parameters = _resolve(name)
  _check_arguments(name, parameters, arguments)
  mask = next((key for key in _MASKS if key in parameters), None)
  stages = [groups.without_key_biases()]
  if "weight_decay" in parameters and mask:
    arguments |= {"weight_decay": weight_decay, mask: groups.decay_mask}
  else:
    stages.append(optax.add_decayed_weights(weight_decay, groups.decay_mask))
    if "weight_decay" in parameters:  # without a mask, it would also decay the thresholds
      arguments |= {"weight_decay": 0.0}
  try:
    stages.append(function(learning_rate, **arguments))
    return optax.chain(*stages)
  except Exception as error:  # an invalid value may raise anything
    raise InputError(
      f"optimizer.name {shown(name)} cannot be created with these arguments ({_said(error)}): "
      "check optimizer.arguments, or choose another"
    ) from error


def check(options):
  """Raises InputError if the optimizer of a plan fails in a step, which is tried on shapes."""
  optimizer = create(options, Schedule(1e-3, 1e-3, 0, 1))
  name, params = options.name, vit.specs(_TRIED_ON)
  given = f" with optimizer.arguments {shown(dict(options.arguments))}" * bool(options.arguments)
  try:
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
  except Exception as error:  # a foreign optimizer may raise anything
    raise InputError(
      f"optimizer.name {shown(name)} cannot be used here{given} ({_said(error)}): a training step "
      "gives it only gradients and parameters; choose another"
    ) from error
  if _shapes(updates) != _shapes(params) or _shapes(after) != _shapes(state):
    raise InputError(
      f"optimizer.name {shown(name)} cannot be used here: its updates differ from the parameters "
      "in shape or type, or its state changes shape or type; choose another"
    )
  if not all(isinstance(leaf.dtype, np.dtype) for leaf in jax.tree.leaves(state)):
    raise InputError(
      f"optimizer.name {shown(name)} cannot be used here: its state has values other than numbers, "
      "which a checkpoint cannot hold; choose another"
    )


def _resolve(name):
  """The function of an optimizer's name, and its parameters as `inspect.signature` has them."""
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
    raise InputError(f"optimizer.name {shown(name)} is not a function: {error}") from error
  if next(iter(parameters), None) != "learning_rate":
    raise InputError(
      f"optimizer.name {shown(name)} is not an optimizer: its first argument is not learning_rate"
    )
  return function, parameters


def _check_arguments(name, parameters, arguments):
  """Raises InputError for arguments that are set here, or that an optimizer does not take."""
  for key in arguments:
    if key in _OURS:
      raise InputError(f"optimizer.arguments sets {key}: {_OURS[key]}")
  free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
  unknown = [key for key in arguments if key not in parameters and not free]
  if unknown:
    taken = ", ".join(key for key in parameters if key not in _OURS) or "none"
    raise InputError(
      f"optimizer.arguments: {', '.join(unknown)} is not known to optimizer {shown(name)}; it "
      f"takes {taken}{hint(unknown[0], [key for key in parameters if key not in _OURS])}; if the "
      "recipe set it, --config.optimizer.arguments= removes all arguments first"
    )


def _of_optax():
  """The names in optax that may be optimizers, for hints."""
  return [*OPTIMIZERS.names, *(n for n in dir(optax) if n.islower() and not n.startswith("_"))]


def _shapes(tree):
  return jax.tree.structure(tree), [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _said(error):
  return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
