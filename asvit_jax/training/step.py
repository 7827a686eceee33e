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
  """Everything a run needs to go on. `ema` is None where the config asks for none."""

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any


@dataclasses.dataclass(frozen=True)
class Objective:
  """What training minimises: the weights of the loss terms and the compute to aim at.

  `target_gmacs` is None for a dense network, which has classification terms only; `temperature` is
  that of the gate, see `pruning.straight_through_gate`. The class head learns by itself; what an
  auxiliary head says of the patch tokens learns from the teacher's, or in a dense network from the
  image's label.
  """

  classification: float = 1.0
  budget: float = 2.0
  distillation: float = 0.5
  token_distillation: float = 0.5
  target_gmacs: float | None = None
  temperature: float = pruning.TEMPERATURE

  def __call__(self, model, images, targets, teacher=None, mean=jnp.mean):
    """The loss of one batch.

    Args:
      model: a `VisionTransformer`.
      images: (b, height, width, 3) normalised.
      targets: (b, classes) soft labels.
      teacher: `Outputs` of the dense teacher; not read for a dense network.
      mean: of a (b,) array over the global batch. The budget is about that mean, so with several
        devices it must reach over them before the absolute value is taken.

    Returns:
      () total, and ({term: ()}, `Outputs`); the terms include the mean `gmacs`.
    """
    if self.target_gmacs is None:
      outputs = executions.dense(model, images)
      terms = {"classification": losses.cross_entropy(outputs.class_logits, targets)}
      if outputs.aux_logits is not None:
        # Half, as LV-ViT weighs its token labels (arXiv:2104.10858).
        auxiliary = losses.cross_entropy(outputs.aux_logits, targets[:, None])
        terms["classification"] += 0.5 * auxiliary
      return self.classification * terms["classification"], (terms, outputs)
    gate = functools.partial(pruning.straight_through_gate, temperature=self.temperature)
    outputs = executions.masked(model, images, gate)
    gmacs = mean(complexity.gmacs(model.arch, outputs.kept))
    terms = {
      "classification": losses.cross_entropy(outputs.class_logits, targets),
      "budget": losses.budget(gmacs, self.target_gmacs),
      "distillation": losses.distillation(outputs.class_logits, teacher.class_logits).mean(),
    }
    if outputs.aux_logits is not None:
      divergence = losses.distillation(outputs.aux_logits, teacher.aux_logits)  # (b, n)
      keep = jax.lax.stop_gradient(outputs.keep[:, -1])
      kept = jnp.maximum(mean(keep.sum(axis=-1)), 1e-6)
      terms["token_distillation"] = mean((divergence * keep).sum(axis=-1)) / kept
    total = sum(getattr(self, name) * term for name, term in terms.items())
    return total, (terms | {"gmacs": gmacs}, outputs)


def create_state(params, optimizer, ema_decay):
  """The state of step 0."""
  ema = jax.tree.map(jnp.copy, params) if ema_decay else None
  return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))


def make_step(graphdef, teacher_graphdef, objective, optimizer, label_smoothing, ema_decay):
  """Builds the step of one device.

  Args:
    graphdef: of the network in training; merged with parameters it is the model.
    teacher_graphdef: of the dense teacher, or None.
    objective: an `Objective`.
    optimizer: an optax optimizer.
    label_smoothing: in [0, 1).
    ema_decay: in [0, 1); 0 for no averaged weights.

  Returns:
    Function of (state, teacher_params, batch) that returns (state, metrics). The batch has `image`
    (b, height, width, 3) uint8 and `label` (b,) int32 of this device; the metrics are means over
    all devices.
  """

  def step(state, teacher_params, batch):
    images = transforms.normalize(batch["image"])
    classes = nnx.merge(graphdef, state.params).arch.classes
    targets = losses.smooth_labels(batch["label"], classes, label_smoothing)
    teacher = None
    if teacher_graphdef is not None:
      teacher = executions.dense(nnx.merge(teacher_graphdef, teacher_params), images)
      teacher = jax.lax.stop_gradient(teacher)

    def loss(params):
      model = nnx.merge(graphdef, params)
      vit.train_mode(model, AXIS)
      total, (terms, outputs) = objective(model, images, targets, teacher, mean=_global_mean)
      return total, (terms, outputs, vit.update_statistics(params, model))

    (total, (terms, outputs, moved)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    grads = jax.lax.pmean(grads, AXIS)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(moved, updates)
    ema = optax.incremental_update(params, state.ema, 1 - ema_decay) if ema_decay else None
    correct = outputs.logits.argmax(axis=-1) == batch["label"]
    metrics = {
      "loss": total,
      **terms,
      "accuracy": 100 * correct.mean(),
      "kept": outputs.kept.mean(axis=0),
      "grad_norm": optax.tree.norm(grads),
    }
    return TrainState(state.step + 1, params, ema, opt_state), jax.lax.pmean(metrics, AXIS)

  return step


def _global_mean(x):
  return jax.lax.pmean(x.mean(), AXIS)
