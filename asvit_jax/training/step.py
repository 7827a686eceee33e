"""The training step: written for one device with a named axis, then run over all devices."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asvit_jax.core.devices import AXIS
from asvit_jax.core.promotion import usual
from asvit_jax.data.mixing import Mixing
from asvit_jax.losses.criteria import Criterion, smooth_labels
from asvit_jax.losses.objective import Objective
from asvit_jax.optimizers import building, groups
from asvit_jax.run.state import TrainState
from asvit_jax.sparsity.executions import in_place
from asvit_jax.training import parallel
from asvit_jax.vit import batch_norm, drop_path


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a training step.

  Attributes:
    label_smoothing: in [0, 1).
    ema_decay: decay of the averaged weights, in [0, 1); 0 for no averaged weights.
    ema_warmup: whether the decay is smaller in early steps, see `decay_at`.
    mixing: mixup, cutmix and erasing; random in `seed`, the step and the index in the global batch.
    seed: of all random draws.
    accumulate: number of equal parts of a device's batch to run one after the other. The result
      equals that of the whole batch, except for batch norms, which see one part at a time.
    drop_path: stochastic depth rate of the last block, see `vit.drop_path`.
    freeze: regular expression of the parameters that are not trained; their batch norms run as in
      evaluation. The optimizer gets the same expression.
    kernels: whether attention and MLPs run by kernels on a TPU, see `sparsity.step_kernels`.
    budget_range: lowest and highest share of the dense GMACs. Every step draws its budget between
      them, the same on all devices; None uses the budget of the objective in every step.
  """

  label_smoothing: float = 0.0
  ema_decay: float = 0.0
  ema_warmup: bool = False
  mixing: Mixing = dataclasses.field(default_factory=Mixing)
  seed: int = 0
  accumulate: int = 1
  drop_path: float = 0.0
  freeze: str = ""
  kernels: bool = False
  budget_range: tuple[float, float] | None = None

  @classmethod
  def of(cls, plan):
    """The options of a `Plan`."""
    return cls(
      label_smoothing=plan.label_smoothing,
      ema_decay=plan.ema_decay,
      ema_warmup=plan.ema_warmup,
      mixing=plan.mix,
      seed=plan.seed,
      accumulate=plan.accumulate,
      drop_path=plan.model.drop_path,
      freeze=plan.optimizer.freeze,
      kernels=plan.model.kernels,
      budget_range=plan.budget_range,
    )


# Folded into the step's key for drawing budgets and dropped branches, so that these draws are
# independent of the mixing, which uses the same seed.
_BUDGET, _DROP_PATH = 0x6275, 0x6470


class Draws(NamedTuple):
  """The random draws of a step, the same on all devices.

  Attributes:
    budget: () share of the dense GMACs; None without `Options.budget_range`.
    drop_path: PRNG key of stochastic depth.
  """

  budget: jax.Array | None
  drop_path: jax.Array


class Forward(NamedTuple):
  """The results of one device's forward pass.

  Attributes:
    loss: ().
    terms: {name: ()}, see `Objective`.
    logits: (b, classes).
    kept: (b, stages) patches that each stage keeps.
    params: the parameters, with updated running statistics of the batch norms.
  """

  loss: jax.Array
  terms: dict[str, jax.Array]
  logits: jax.Array
  kept: jax.Array
  params: Any


def make_program(plan, network, optimizer, devices=None):
  """The program of a run: its training step over all devices.

  For a pruned network, the metrics of a step include the `thresholds` after it, because the next
  step reuses the memory of the state.

  Args:
    plan: a `Plan`, complete.
    network: the `Network` to train; its parameters are not read.
    optimizer: an optax optimizer.
    devices: devices to compile for, see `parallel.parallelize`.

  Returns:
    The function of (state, teacher_params, batch) that `parallel.parallelize` returns, and the
    `Objective`.
  """
  objective = Objective(
    weights=plan.loss,
    target_gmacs=plan.target_gmacs,
    temperature=plan.temperature,
    remat=plan.model.remat,
    criterion=Criterion(plan.criterion.name, plan.criterion.arguments, plan.class_weights),
  )
  teacher = network.dense if network.prunes else None
  step = make_step(network, teacher, objective, optimizer, Options.of(plan))

  def reporting_step(state, teacher_params, batch):
    state, metrics = step(state, teacher_params, batch)
    if network.prunes:
      metrics = metrics | {"thresholds": state.params["thresholds"]}
    return state, metrics

  return parallel.parallelize(reporting_step, plan.parallel, devices), objective


def create_state(params, optimizer, ema_decay):
  """The `TrainState` of step 0."""
  ema = jax.tree.map(jnp.copy, params) if ema_decay else None
  zero = jnp.zeros((), jnp.int32)
  return TrainState(zero, params, ema, optimizer.init(params), jnp.copy(zero))


def state_shapes(params, optimizer, ema_decay):
  """The result of `create_state` as `jax.ShapeDtypeStruct`s; `params` may be such, too."""
  return jax.eval_shape(lambda params: create_state(params, optimizer, ema_decay), params)


def make_step(student, teacher, objective, optimizer, options=None):
  """Builds the step of one device.

  Args:
    student: the `Network` in training; its parameters are not read.
    teacher: its dense teacher, a `Network` whose parameters are not read; None for a dense student.
    objective: an `Objective`.
    optimizer: an optax optimizer.
    options: `Options`, or None for the defaults.

  Returns:
    Function of (state, teacher_params, batch) that returns (state, metrics). The batch has `image`
    (b, height, width, 3) uint8 and `label` (b,) int32 of this device. The metrics are means over
    all devices, except `skipped`, the number of steps in a row that were skipped, and `updates`,
    the number of earlier steps that were not, which selects the learning rate. A step whose loss or
    gradient is not finite is skipped: it changes only the counters.
  """
  options = options or Options()
  if options.kernels:
    student = _by_kernels(student)
    teacher = teacher and _by_kernels(teacher)
  return Step(student, teacher, objective, optimizer, options)


def _by_kernels(network):
  from asvit_jax.sparsity import step_kernels  # Pallas takes a second to import

  return step_kernels.by_kernels(network)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
  """A training step on one device; `make_step` describes its arguments and results."""

  student: Any
  teacher: Any
  objective: Objective
  optimizer: optax.GradientTransformation
  options: Options

  @usual
  def __call__(self, state, teacher_params, batch):
    """Runs one step: (state, metrics), see `make_step`."""
    images, targets = self._augmented(batch, state.step)
    draws = Draws(self._drawn_budget(state.step), self._key(state.step, _DROP_PATH))
    places = jax.lax.axis_index(AXIS) * len(images) + jnp.arange(len(images))
    run = self._whole if self.options.accumulate == 1 else self._in_parts
    forward, grads = run(state.params, teacher_params, images, targets, places, draws)
    loss, grads = jax.lax.pmean((forward.loss, grads), AXIS)
    norm = optax.tree.norm(grads)
    done = building.updates_done(state.opt_state)
    state = self._moved(state, forward.params, grads, jnp.isfinite(loss) & jnp.isfinite(norm))
    metrics = {
      "loss": loss,
      **forward.terms,
      "accuracy": 100 * (forward.logits.argmax(axis=-1) == targets.argmax(axis=-1)).mean(),
      "kept": forward.kept.mean(axis=0),
      "grad_norm": optax.tree.norm(groups.without_frozen(grads, self.options.freeze)),
    } | ({} if draws.budget is None else {"drawn_budget": draws.budget})
    counters = {"skipped": state.skipped, "updates": state.step - 1 if done is None else done}
    return state, jax.lax.pmean(metrics, AXIS) | counters

  def _augmented(self, batch, step):
    """The mixed batch: normalised images, and (b, classes) soft labels."""
    options = self.options
    images = self.student.preprocessing.normalize(batch["image"])
    classes = self.student.arch.classes
    targets = smooth_labels(batch["label"], classes, options.label_smoothing)
    key = jax.random.fold_in(jax.random.key(options.seed), step)
    first = jax.lax.axis_index(AXIS) * len(images)
    return options.mixing(key, images, targets, first)

  def _drawn_budget(self, step):
    """() share of the dense GMACs for this step; None without a `budget_range`."""
    if self.options.budget_range is None:
      return None
    low, high = self.options.budget_range
    key = self._key(step, _BUDGET)
    return jax.random.uniform(key, (), jnp.float32, minval=low, maxval=high)

  def _key(self, step, what):
    key = jax.random.fold_in(jax.random.key(self.options.seed), step)
    return jax.random.fold_in(key, what)

  def _whole(self, params, teacher_params, images, targets, places, draws, totals=None):
    """Runs all of this device's images at once; `totals` as for `Objective`.

    Returns:
      `Forward`, and the gradients.
    """
    teacher, target = None, None
    if draws.budget is not None:
      target = draws.budget * self.student.dense_gmacs
    if self.teacher is not None:
      teacher = self._of_network(self.teacher.with_params(teacher_params))
      teacher = in_place.dense(teacher, images)
      teacher = jax.lax.stop_gradient(teacher)

    def loss(params):
      model = self._model(params, places, draws)
      total, (terms, outputs) = self.objective(
        model, images, targets, teacher, _global_mean, totals, target
      )
      after = batch_norm.update_statistics(params, model)
      return total, Forward(total, terms, outputs.logits, outputs.kept, after)

    (_, forward), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return forward, grads

  def _in_parts(self, params, teacher_params, images, targets, places, draws):
    """As `_whole`, but runs `options.accumulate` parts of the images one after the other."""
    count = self.options.accumulate
    parts = (images, targets, places)
    parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), parts)
    totals = None
    if self.objective.target_gmacs is not None:
      measured = jax.lax.map(
        lambda part: self.objective.measure(self._model(params, part[2], draws), part[0]), parts
      )
      totals = jax.tree.map(_global_mean, measured)

    def run(carry, part):
      params, total = carry
      forward, grads = self._whole(params, teacher_params, *part, draws, totals)
      return (forward.params, jax.tree.map(jnp.add, total, grads)), forward._replace(params=None)

    start = (params, jax.tree.map(jnp.zeros_like, params))
    (params, grads), forward = jax.lax.scan(run, start, parts)
    loss, terms = jax.tree.map(lambda x: x.mean(axis=0), (forward.loss, forward.terms))
    # Not -1: a dense network's `kept` has no stages, so the size cannot be inferred.
    logits, kept = (x.reshape(len(images), x.shape[-1]) for x in (forward.logits, forward.kept))
    grads = jax.tree.map(lambda g: g / count, grads)
    return Forward(loss, terms, logits, kept, params), grads

  def _moved(self, state, params, grads, finite):
    """The `TrainState` after the step.

    Args:
      state: the `TrainState` before it.
      params: its parameters, with updated running statistics of the batch norms.
      grads: gradients, averaged over the devices.
      finite: () bool; where it is False, only the counters change.
    """
    updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(params, updates)
    ema = None
    if self.options.ema_decay:
      decay = decay_at(state.step, self.options.ema_decay, self.options.ema_warmup)
      ema = optax.incremental_update(params, state.ema, 1 - decay)
    params, ema, opt_state = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old),
      (params, ema, opt_state),
      (state.params, state.ema, state.opt_state),
    )
    skipped = jnp.where(finite, 0, state.skipped + 1)
    return TrainState(state.step + 1, params, ema, opt_state, skipped)

  def _model(self, params, places, draws):
    """The student's model in training mode, with the thresholds of the budget that was drawn."""
    student = self.student.with_params(params)
    model = self._of_network(student if draws.budget is None else student.at(draws.budget))
    batch_norm.train_mode(model, AXIS, self.options.freeze)
    drop_path.train_mode(model, self.options.drop_path, draws.drop_path, places)
    return model

  def _of_network(self, network):
    """The model of a `Network`."""
    model = network.model
    if self.options.kernels:
      from asvit_jax.sparsity import step_kernels

      step_kernels.train_mode(model)
    return model


def _global_mean(x):
  return jax.lax.pmean(x.mean(), AXIS)


def decay_at(step, decay, warmup):
  """The decay of the averaged weights in a step.

  Args:
    step: () int, the number of steps before this one.
    decay: `ema_decay`, in (0, 1).
    warmup: whether the decay is at most `(1 + step) / (10 + step)`, as in TensorFlow's
      `ExponentialMovingAverage`. The average then soon forgets the initial weights: it covers about
      the last tenth of the steps, until that is longer than the window of `decay`.

  Returns:
    () float32, or `decay` itself.
  """
  if not warmup:
    return decay
  step = jnp.asarray(step, jnp.float32)
  return jnp.minimum(decay, (1 + step) / (10 + step))


def initial_share(steps, decay, warmup):
  """The share of the initial weights in the averaged ones after `steps` steps, in [0, 1]."""
  if not warmup:
    return float(decay**steps)
  # (1 + t) ÷ (10 + t) is below the decay in the first steps; their product is 9! n! ÷ (n + 9)!.
  first = min(steps, max(0, math.ceil((10 * decay - 1) / (1 - decay))))
  k = np.arange(1, 10, dtype=np.float64)
  return float(np.exp(np.log(k / (first + k)).sum() + (steps - first) * math.log(decay)))
