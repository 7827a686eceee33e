"""Fine-tuning, the same for all contenders: distillation from the dense network, without labels."""

import jax
import numpy as np
import optax

from asvit_jax import vit
from asvit_jax.core import leaves
from asvit_jax.core.errors import DivergedError
from asvit_jax.core.progress import log
from asvit_jax.core.promotion import usual
from asvit_jax.data import loader
from asvit_jax.losses.terms import divergence
from asvit_jax.optimizers.building import create
from asvit_jax.sparsity.executions import EXECUTIONS
from asvit_jax.vit import batch_norm


def finetune(contender, teacher, plan, source):
  """Trains the weights of a contender; its counts or thresholds stay fixed.

  The loss is the divergence of its prediction from the dense network's, the mean over the batch;
  labels are not used. Batches, augmentation, optimizer and schedule are the plan's. There are no
  averaged weights, and the statistics of batch norms do not change. It runs on one device.

  Args:
    contender: a `Contender`, calibrated.
    teacher: the `Network`, dense.
    plan: a `Plan`; `data`, `mix`, `batch_size`, `epochs` or `total_steps`, `optimizer`, `seed`
      and `log_every` are read.
    source: a `Source` of images to train on.

  Returns:
    The `Contender` with the trained weights.

  Raises:
    DivergedError: the loss is not finite.
  """
  plan = plan.of_images(len(source))
  steps, optimizer = plan.steps, create(plan.optimizer, plan.schedule)
  step = _make_step(contender, teacher, optimizer, plan)
  params = vit.without_thresholds(contender.network.params)  # thresholds are not trained
  opt_state = optimizer.init(params)
  batches = loader.train_batches(plan, source, contender.network.preprocessing)
  try:
    for index, batch in zip(range(steps), batches, strict=False):
      params, opt_state, loss = step(params, opt_state, np.int32(index), batch["image"])
      if (index + 1) % plan.log_every == 0 or index + 1 == steps:
        _report(contender, index + 1, steps, float(loss))
  finally:
    batches.close()
  return contender.with_network(contender.network.with_params(contender.network.params | params))


def _make_step(contender, teacher, optimizer, plan):
  """A step: (params, optimizer state, step, uint8 images) -> (params, optimizer state, () loss)."""
  network, run = contender.network, contender.method.training(contender.counts)
  dense = EXECUTIONS["dense"]

  def loss_of(params, images, wanted):
    model = network.with_params(network.params | params).model
    return divergence(run(model, images).logits, wanted).mean()

  @jax.jit
  @usual
  def step(params, opt_state, index, images):
    key = jax.random.fold_in(jax.random.key(plan.seed), index)
    images = network.preprocessing.normalize(images)
    images, _ = plan.mix(key, images, np.zeros((len(images), 1), np.float32))
    wanted = jax.lax.stop_gradient(dense(teacher.model, images).logits)
    loss, grads = jax.value_and_grad(loss_of)(params, images, wanted)
    grads = leaves.map_named(_unless_statistic, grads)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss

  return step


def _unless_statistic(name, grad):
  return grad * 0 if batch_norm.is_statistic(name) else grad


def _report(contender, step, steps, loss):
  log(f"fine-tuning {contender.title}, step {step}/{steps}: loss {loss:.4f}")
  if not np.isfinite(loss):
    raise DivergedError(
      f"fine-tuning {contender.title}: the loss is {loss} at step {step}; lower optimizer.lr"
    )
