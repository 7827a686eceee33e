"""Holds this implementation against reference numbers of the authors' PyTorch code.

python -m asvit_jax.parity FILE.npz

The file has a small random network, a batch, and what the reference computed with them: evaluation,
one training step with every loss term and gradient, the batch norm's statistics after it, and the
first steps of a trajectory. `meta` has the hyper-parameters. Evaluation is held against the masked
and the packed execution, the latter for each image alone and for the batch. Ends with one line of
JSON: the largest errors and `"ok"`.
"""

import json
import pathlib
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from asvit_jax import cli, complexity, executions, packing, vit, weights
from asvit_jax.errors import InputError
from asvit_jax.training.optimizer import adamw
from asvit_jax.training.step import Objective

TOLERANCES = {
  "logits": 1e-4,  # absolute: evaluation, the dense teacher and the training forward
  "masks": 0,  # tokens kept differently, in evaluation and in training
  "gmacs": 1e-4,  # relative, by image
  "loss": 1e-4,  # relative, by term
  "statistics": 1e-4,  # relative, in the norm of a running mean or variance
  "gradient": 1e-3,  # relative, in the norm of a parameter
  "trajectory": 1e-3,  # relative, the first three losses
}
# Names of the loss terms in the file, and ours.
_TERMS = {
  "total": "total",
  "classification": "classification",
  "budget": "budget",
  "logit_distillation": "distillation",
  "token_distillation": "token_distillation",
}


def check(path):
  """Compares with one file.

  Args:
    path: an .npz file of the format in the module's docstring.

  Returns:
    Dictionary of the largest error by kind (the keys of `TOLERANCES`), and `ok`.

  Raises:
    InputError: a missing file, or one of another format.
  """
  reference = _read(path)
  meta = json.loads(str(reference["meta"]))
  arch = _architecture(meta, reference)
  graphdef, _ = vit.abstract(arch)
  params = weights.from_timm(arch, _subset(reference, "student/"), f"{path}, student")
  student = nnx.merge(graphdef, params)
  teacher = nnx.merge(
    vit.abstract(arch.dense)[0],
    weights.from_timm(arch.dense, _subset(reference, "teacher/"), f"{path}, teacher"),
  )
  images = jnp.asarray(reference["images"], jnp.float32).transpose(0, 2, 3, 1)
  targets = jnp.asarray(reference["labels"])
  objective = Objective(
    budget=meta["ratio_weight"],
    distillation=meta["distill_weight"],
    token_distillation=meta["distill_weight"],
    target_gmacs=meta["keep_ratio"] * complexity.dense_gmacs(arch),
    temperature=meta["temperature"],
  )
  taught = jax.jit(executions.dense)(teacher, images)

  @jax.jit
  def loss_and_grads(params):
    def loss(params):
      model = nnx.merge(graphdef, params)
      vit.train_mode(model)
      total, (terms, outputs) = objective(model, images, targets, taught)
      return total, (terms, outputs, vit.update_statistics(params, model))

    return jax.value_and_grad(loss, has_aux=True)(params)

  evaluation = jax.jit(executions.masked)(student, images)
  alone = [jax.jit(packing.packed)(student, image[None]) for image in images]
  runs = [
    evaluation,
    jax.jit(packing.packed)(student, images),
    jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *alone),
  ]
  (total, (terms, outputs, moved)), grads = loss_and_grads(params)
  terms = terms | {"total": total}

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
      _relative(complexity.gmacs(arch, outputs.kept), reference["train/gflops"]),
      _relative(complexity.dense_gmacs(arch), reference["teacher_gflops"]),
      _relative(objective.target_gmacs, reference["loss/target_gflops"]),
    ),
    "loss": max(
      _relative(terms[o], reference[f"loss/{r}"]) for r, o in _TERMS.items() if o in terms
    ),
    "statistics": _statistics_error(moved, _subset(reference, "after_forward/")),
    "gradient": _gradient_error(grads, _subset(reference, "grad/")),
    "trajectory": _trajectory_error(loss_and_grads, params, meta["optimizer"], reference),
  }
  return errors | {"ok": all(errors[k] <= TOLERANCES[k] for k in TOLERANCES)}


def _trajectory_error(loss_and_grads, params, hyper, reference):
  """Largest relative error of the first three losses; later ones amplify rounding."""
  b1, b2 = hyper["betas"]
  optimizer = adamw(hyper["lr"], hyper["weight_decay"], b1=b1, b2=b2, eps=hyper["eps"])
  opt_state, losses = optimizer.init(params), []
  for _ in range(3):
    (total, _), grads = loss_and_grads(params)
    losses.append(total)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
  return _relative(jnp.stack(losses), reference["trajectory/loss"][:3])


def _statistics_error(params, theirs):
  ours = weights.to_timm(params)
  return max((_norm_error(ours[name], value) for name, value in theirs.items()), default=0.0)


def _gradient_error(grads, theirs):
  ours = {k: v for k, v in weights.to_timm(grads).items() if ".running_" not in k}
  if set(ours) != set(theirs):
    raise InputError(f"gradients of other parameters: {sorted(set(ours) ^ set(theirs))}")
  return max(_norm_error(ours[name], g) for name, g in theirs.items())


def _architecture(meta, reference):
  family = {"vit": {}, "lvvit": dict(stem="lv", aux_head=True)}
  if meta["kind"] not in family:
    raise InputError(f"network kind {meta['kind']!r}: expected one of {', '.join(family)}")
  patch = reference["student/patch_embed.proj.weight"].shape[-1]
  return vit.Architecture(
    width=meta["embed_dim"],
    heads=meta["num_heads"],
    depth=meta["depth"],
    mlp_ratio=meta["mlp_ratio"],
    image_size=reference["images"].shape[-1],
    patch_size=2 * patch if meta["kind"] == "lvvit" else patch,  # the stem halves the image
    classes=meta["num_classes"],
    norm_epsilon=meta["layer_norm_eps"],
    qkv_bias=meta["qkv_bias"],
    residual_divisor=meta.get("skip_lam", 1.0),
    prune_before=tuple(meta["prune_at"]),
    **family[meta["kind"]],
  )


def _read(path):
  path = pathlib.Path(path)
  if not path.is_file():
    raise InputError(f"{path}: no such file; expected an .npz file of reference numbers")
  try:
    with np.load(path) as file:
      reference = {name: file[name] for name in file.files}
  except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f"{path}: not a readable .npz file ({error})") from error
  if "meta" not in reference:
    raise InputError(f"{path}: no `meta` entry; expected an .npz file of reference numbers")
  return reference


def _subset(arrays, prefix):
  return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _absolute(ours, theirs):
  return float(np.abs(np.asarray(ours) - theirs).max())


def _norm_error(ours, theirs):
  return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-12))


def _relative(ours, theirs):
  return float((np.abs(np.asarray(ours) - theirs) / np.abs(theirs)).max())


def main(arguments):
  """The command line: one file, one JSON line, exit status 1 where the numbers differ."""
  errors = check(arguments[0])
  for name, tolerance in TOLERANCES.items():
    cli.log(f"{name:12} {errors[name]:.2e}  allowed {tolerance:g}")
  return errors


if __name__ == "__main__":
  cli.run(main, least=1, most=1)
