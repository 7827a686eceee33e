"""One training step, written per device with a named axis; `parallel` turns it into the program."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from asvit_jax import complexity, executions, losses, pruning, vit
from asvit_jax.data import transforms

AXIS = "data"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything a run needs to go on; data and randomness follow from `step` and the seed.

  `ema` is None where the config asks for none. `skipped` counts the steps in a row, up to this one,
  that changed nothing because the loss or its gradient was not finite.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  skipped: jax.Array


@dataclasses.dataclass(frozen=True)
class Objective:
  """What training minimises: the weights of the loss terms and the compute to aim at.

  `target_gmacs` is None for a dense network, which has classification terms only; `temperature` is
  that of the gate, see `pruning.straight_through_gate`; `remat` recomputes blocks in the backward
  pass instead of keeping what they computed. The class head learns by itself; what an
  auxiliary head says of the patch tokens learns from the teacher's, or in a dense network from the
  image's label.
  """

  classification: float = 1.0
  budget: float = 2.0
  distillation: float = 0.5
  token_distillation: float = 0.5
  target_gmacs: float | None = None
  temperature: float = pruning.TEMPERATURE
  remat: bool = False

  def __call__(self, model, images, targets, teacher=None, mean=jnp.mean, totals=None):
    """The loss of one batch.

    Args:
      model: a `VisionTransformer`.
      images: (b, height, width, 3) normalised.
      targets: (b, classes) soft labels.
      teacher: `Outputs` of the dense teacher; not read for a dense network.
      mean: of a (b,) array over the global batch. The budget is about that mean, so with several
        devices it must reach over them before the absolute value is taken.
      totals: `measure` of the whole batch where `images` are a part of it, else None.

    Returns:
      () total, and ({term: ()}, `Outputs`); the terms include the mean `gmacs`.
    """
    if self.target_gmacs is None:
      outputs = executions.dense(model, images, remat=self.remat)
      terms = {"classification": losses.cross_entropy(outputs.class_logits, targets)}
      if outputs.aux_logits is not None:
        # Half, as LV-ViT weighs its token labels (arXiv:2104.10858).
        auxiliary = losses.cross_entropy(outputs.aux_logits, targets[:, None])
        terms["classification"] += 0.5 * auxiliary
      return self.classification * terms["classification"], (terms, outputs)
    gate = functools.partial(pruning.straight_through_gate, temperature=self.temperature)
    outputs = executions.masked(model, images, gate, remat=self.remat)
    gmacs = mean(complexity.gmacs(model.arch, outputs.kept))
    kept = mean(outputs.kept[:, -1])
    if totals is not None:  # the values of the whole batch, the gradient of this part
      gmacs = totals["gmacs"] + gmacs - jax.lax.stop_gradient(gmacs)
      kept = totals["kept"]
    terms = {
      "classification": losses.cross_entropy(outputs.class_logits, targets),
      "budget": losses.budget(gmacs, self.target_gmacs),
      "distillation": losses.distillation(outputs.class_logits, teacher.class_logits).mean(),
    }
    if outputs.aux_logits is not None:
      divergence = losses.distillation(outputs.aux_logits, teacher.aux_logits)  # (b, n)
      keep = jax.lax.stop_gradient(outputs.keep[:, -1])
      kept = jnp.maximum(jax.lax.stop_gradient(kept), 1e-6)
      terms["token_distillation"] = mean((divergence * keep).sum(axis=-1)) / kept
    total = sum(getattr(self, name) * term for name, term in terms.items())
    return total, (terms | {"gmacs": gmacs}, outputs)

  def measure(self, model, images):
    """What the loss needs to know of a whole batch: {"gmacs": (b,), "kept": (b,)} by image."""
    outputs = executions.masked(model, images)
    return {"gmacs": complexity.gmacs(model.arch, outputs.kept), "kept": outputs.kept[:, -1]}


def create_state(params, optimizer, ema_decay):
  """The state of step 0."""
  ema = jax.tree.map(jnp.copy, params) if ema_decay else None
  zero = jnp.zeros((), jnp.int32)
  return TrainState(zero, params, ema, optimizer.init(params), jnp.copy(zero))


def make_step(
  graphdef,
  teacher_graphdef,
  objective,
  optimizer,
  label_smoothing,
  ema_decay,
  mixing=None,
  seed=0,
  accumulate=1,
  freeze="",
):
  """Builds the step of one device.

  Args:
    graphdef: of the network in training; merged with parameters it is the model.
    teacher_graphdef: of the dense teacher, or None.
    objective: an `Objective`.
    optimizer: an optax optimizer.
    label_smoothing: in [0, 1).
    ema_decay: in [0, 1); 0 for no averaged weights.
    mixing: a `Mixing`, or None.
    seed: of `mixing`, which is a function of it, the step and the place in the global batch.
    accumulate: number of equal parts of the device's batch to run one after the other. The result
      is that of the whole batch, but for batch norms, which see a part at a time.
    freeze: regular expression of the parameters that stay; their batch norms stay as in evaluation.

  Returns:
    Function of (state, teacher_params, batch) that returns (state, metrics). The batch has `image`
    (b, height, width, 3) uint8 and `label` (b,) int32 of this device; the metrics are means over
    all devices. A step whose loss or gradient is not finite changes nothing but the counters.
  """

  def loss_and_grads(params, teacher_params, images, targets, totals):
    """Of a part of the device's batch; also what is left of the forward pass."""
    teacher = None
    if teacher_graphdef is not None:
      teacher = executions.dense(nnx.merge(teacher_graphdef, teacher_params), images)
      teacher = jax.lax.stop_gradient(teacher)

    def loss(params):
      model = nnx.merge(graphdef, params)
      vit.train_mode(model, AXIS, freeze)
      total, (terms, outputs) = objective(model, images, targets, teacher, _global_mean, totals)
      moved = vit.update_statistics(params, model)
      return total, (terms, outputs.logits, outputs.kept, moved)

    return jax.value_and_grad(loss, has_aux=True)(params)

  def accumulated(params, teacher_params, images, targets):
    """`loss_and_grads` of all parts; logits and kept of all images, the rest their means."""
    parts = jax.tree.map(
      lambda x: x.reshape(accumulate, -1, *x.shape[1:]), {"images": images, "targets": targets}
    )
    totals = None
    if objective.target_gmacs is not None:

      def measure(images):
        model = nnx.merge(graphdef, params)
        vit.train_mode(model, AXIS, freeze)
        return objective.measure(model, images)

      totals = jax.tree.map(_global_mean, jax.lax.map(measure, parts["images"]))

    def part(carry, part):
      params, total = carry
      (loss, (terms, logits, kept, moved)), grads = loss_and_grads(
        params, teacher_params, part["images"], part["targets"], totals
      )
      return (moved, jax.tree.map(jnp.add, total, grads)), (loss, terms, logits, kept)

    start = (params, jax.tree.map(jnp.zeros_like, params))
    (moved, grads), (loss, terms, logits, kept) = jax.lax.scan(part, start, parts)
    grads = jax.tree.map(lambda g: g / accumulate, grads)
    loss, terms = jax.tree.map(lambda x: x.mean(axis=0), (loss, terms))
    logits, kept = (x.reshape(-1, x.shape[-1]) for x in (logits, kept))
    return (loss, (terms, logits, kept, moved)), grads

  def step(state, teacher_params, batch):
    images = transforms.normalize(batch["image"])
    classes = nnx.merge(graphdef, state.params).arch.classes
    targets = losses.smooth_labels(batch["label"], classes, label_smoothing)
    if mixing is not None:
      key = jax.random.fold_in(jax.random.key(seed), state.step)
      first = jax.lax.axis_index(AXIS) * len(images)
      images, targets = mixing(key, images, targets, first)
    if accumulate == 1:
      result = loss_and_grads(state.params, teacher_params, images, targets, None)
    else:
      result = accumulated(state.params, teacher_params, images, targets)
    (total, (terms, logits, kept, moved)), grads = result

    total, grads = jax.lax.pmean((total, grads), AXIS)
    norm = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(moved, updates)
    ema = optax.incremental_update(params, state.ema, 1 - ema_decay) if ema_decay else None
    finite = jnp.isfinite(total) & jnp.isfinite(norm)
    params, ema, opt_state = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old),
      (params, ema, opt_state),
      (state.params, state.ema, state.opt_state),
    )
    skipped = jnp.where(finite, 0, state.skipped + 1)
    metrics = {
      "loss": total,
      **terms,
      "accuracy": 100 * (logits.argmax(axis=-1) == targets.argmax(axis=-1)).mean(),
      "kept": kept.mean(axis=0),
      "grad_norm": norm,
    }
    metrics = jax.lax.pmean(metrics, AXIS) | {"skipped": skipped}
    return TrainState(state.step + 1, params, ema, opt_state, skipped), metrics

  return step


def _global_mean(x):
  return jax.lax.pmean(x.mean(), AXIS)
