"""Compares this implementation with reference numbers of the authors' PyTorch code.

A reference file contains a small random network, a batch, and the authors' results for them: the
evaluation, one training step with every loss term and gradient, the batch norm's statistics after
it, and the losses of the first training steps. `meta` has the hyper-parameters. The evaluation is
compared with masked and with packed execution, the latter for each image alone and for the batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asvit_jax.core.devices import precision
from asvit_jax.core.errors import InputError
from asvit_jax.losses.objective import Objective
from asvit_jax.network import Network
from asvit_jax.optimizers.building import build
from asvit_jax.reference.files import architecture, metadata, read, subset
from asvit_jax.sparsity.complexity import dense_gmacs, gmacs
from asvit_jax.sparsity.executions import in_place
from asvit_jax.sparsity.executions.packed import packed
from asvit_jax.vit import batch_norm
from asvit_jax.weights import from_timm, to_timm

TOLERANCES = {
  "logits": 1e-4,  # absolute: evaluation, dense teacher and training forward
  "masks": 0,  # number of tokens that are kept differently, in evaluation and training
  "gmacs": 1e-4,  # relative, per image
  "loss": 1e-4,  # relative, per term
  "statistics": 1e-4,  # relative, norm of each running mean or variance
  "gradient": 1e-3,  # relative, norm of each parameter's gradient
  "trajectory": 1e-4,  # relative, losses of the first two steps if they are stable
  "trajectory_later": 10,  # losses of later steps, in multiples of the effect of rounding
}
_ROUNDING = 1e-5  # relative: losses that change by at most this are stable
_PERTURBATIONS = 3
# {name of a loss term in the file: our name}.
_TERMS = {
  "total": "total",
  "classification": "classification",
  "budget": "budget",
  "logit_distillation": "distillation",
  "token_distillation": "token_distillation",
}


def check(path):
  """Compares with one file of reference numbers.

  Args:
    path: an .npz file of the format in the module's docstring.

  Returns:
    Dictionary of the largest error of each kind (the keys of `TOLERANCES`), and `ok`.

  Raises:
    InputError: the file is missing or has another format.
  """
  with precision("highest"):  # the reference uses float32 products
    return _check(path)


def _check(path):
  reference = read(path)
  meta = metadata(reference, path)
  arch = architecture(meta, reference)
  params = from_timm(arch, subset(reference, "student/"), f"{path}, student")
  student = Network(arch, params)
  teacher = Network(arch, from_timm(arch.dense, subset(reference, "teacher/"), f"{path}, teacher"))
  images = jnp.asarray(reference["images"], jnp.float32).transpose(0, 2, 3, 1)
  targets = jnp.asarray(reference["labels"])
  objective = Objective(
    {
      "budget": meta["ratio_weight"],
      "distillation": meta["distill_weight"],
      "token_distillation": meta["distill_weight"],
    },
    target_gmacs=meta["keep_ratio"] * dense_gmacs(arch),
    temperature=meta["temperature"],
  )
  taught = jax.jit(in_place.dense)(teacher.model, images)

  @jax.jit
  def loss_and_grads(params):
    def loss(params):
      model = student.with_params(params).model
      batch_norm.train_mode(model)
      total, (terms, outputs) = objective(model, images, targets, taught)
      return total, (terms, outputs, batch_norm.update_statistics(params, model))

    return jax.value_and_grad(loss, has_aux=True)(params)

  run_packed = jax.jit(packed)
  alone = [run_packed(student.model, image[None]) for image in images]
  runs = [
    jax.jit(in_place.masked)(student.model, images),
    run_packed(student.model, images),
    jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *alone),
  ]
  (total, (terms, outputs, moved)), grads = loss_and_grads(params)
  terms = terms | {"total": total}
  early, later = _trajectory_errors(loss_and_grads, params, meta["optimizer"], reference)

  errors = {
    "logits": max(
      *(_absolute(run.logits, reference["eval/logits"]) for run in runs),
      _absolute(taught.class_logits, reference["teacher_eval/logits"]),
      _absolute(outputs.class_logits, reference["train/logits"]),
      _absolute(
        outputs.aux_logits if arch.aux_head else outputs.tokens[:, 1:], reference["train/tokens"]
      ),
    ),
    "masks": sum(int((run.keep != reference["eval/kept"]).sum()) for run in runs)
    + int((outputs.keep != reference["train/masks"]).sum())
    + int((outputs.keep[:, -1] != reference["train/final_mask"]).sum()),
    "gmacs": max(
      _relative(gmacs(arch, outputs.kept), reference["train/gflops"]),
      _relative(dense_gmacs(arch), reference["teacher_gflops"]),
      _relative(objective.target_gmacs, reference["loss/target_gflops"]),
    ),
    "loss": max(
      _relative(terms[o], reference[f"loss/{r}"]) for r, o in _TERMS.items() if o in terms
    ),
    "statistics": _statistics_error(moved, subset(reference, "after_forward/")),
    "gradient": _gradient_error(grads, subset(reference, "grad/")),
    "trajectory": early,
    "trajectory_later": later,
  }
  return errors | {"ok": all(errors[k] <= TOLERANCES[k] for k in TOLERANCES)}


def _trajectory_errors(loss_and_grads, params, hyper, reference):
  """Compares the losses of the first training steps with the reference's.

  Training amplifies rounding errors, and a token whose score is near its threshold may be kept or
  not by rounding alone. To account for that, the losses are computed again from weights perturbed
  by 1e-7 of their size. The first two losses must match closely, unless the perturbation already
  changes the second; the others must match within a multiple of the perturbation's effect.

  Returns:
    The largest relative error of the first two losses (of the first, if the second is not stable),
    and the largest error of the others as a multiple of their spread, at least `_ROUNDING`.
  """
  theirs = reference["trajectory/loss"]
  ours = _trajectory(loss_and_grads, params, hyper, len(theirs))
  spread = np.zeros(len(theirs))
  for seed in range(_PERTURBATIONS):
    moved = _trajectory(loss_and_grads, _perturbed(params, seed), hyper, len(theirs))
    spread = np.maximum(spread, np.abs(moved - ours) / np.abs(theirs))
  errors = np.abs(ours - theirs) / np.abs(theirs)
  tight = 2 if spread[1] <= _ROUNDING else 1
  later = errors[tight:] / np.maximum(spread[tight:], _ROUNDING)
  return float(errors[:tight].max()), float(later.max())


def _trajectory(loss_and_grads, params, hyper, steps):
  """(steps,) the loss before each step."""
  b1, b2 = hyper["betas"]
  optimizer = build("adamw", hyper["lr"], hyper["weight_decay"], b1=b1, b2=b2, eps=hyper["eps"])
  opt_state, losses = optimizer.init(params), []
  for _ in range(steps):
    (total, _), grads = loss_and_grads(params)
    losses.append(float(total))
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
  return np.array(losses)


def _perturbed(params, seed):
  """Parameters perturbed at random by 1e-7 of their size, about float32's rounding error."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: x * (1 + 1e-7 * rng.standard_normal(x.shape)).astype(np.float32), params
  )


def _statistics_error(params, theirs):
  ours = to_timm(params)
  return max((_norm_error(ours[name], value) for name, value in theirs.items()), default=0.0)


def _gradient_error(grads, theirs):
  ours = {k: v for k, v in to_timm(grads).items() if ".running_" not in k}
  if set(ours) != set(theirs):
    raise InputError(f"gradients of other parameters: {sorted(set(ours) ^ set(theirs))}")
  return max(_norm_error(ours[name], g) for name, g in theirs.items())


def _absolute(ours, theirs):
  return float(np.abs(np.asarray(ours) - theirs).max())


def _norm_error(ours, theirs):
  return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-12))


def _relative(ours, theirs):
  return float((np.abs(np.asarray(ours) - theirs) / np.abs(theirs)).max())
