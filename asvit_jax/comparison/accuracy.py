"""Accuracy, cost, and divergence from the dense network, of a contender on the images."""

import jax
import numpy as np

from asvit_jax.core.progress import Progress
from asvit_jax.data import loader
from asvit_jax.evaluation import divergence
from asvit_jax.losses import terms
from asvit_jax.sparsity import complexity


def measure_dense(network, plan, source):
  """Measures the dense network, the baseline.

  Args:
    network: a `Network`, dense.
    plan: a `Plan`; `data` and `eval.batch_size` are read.
    source: a `Source` of the images to evaluate on.

  Returns:
    A dictionary and the (images, classes) logits. The dictionary has `top1` in percent and its
    standard error `top1_error`, `gmacs` and `share` by the paper's count, `real_gmacs` and
    `real_share`, and the number of `images`.
  """
  rows = _rows(run_dense, network, plan, source, "dense")
  gmacs = complexity.dense_gmacs(network.arch), real_dense_gmacs(network.arch)
  return _summary(rows, *gmacs, network.arch), rows["logits"]


def measure(contender, plan, source, dense_logits):
  """Measures a contender.

  Args:
    contender: a `Contender`, calibrated.
    plan: as for `measure_dense`.
    source: as for `measure_dense`.
    dense_logits: (images, classes) logits from `measure_dense`.

  Returns:
    The dictionary of `measure_dense` with that of `divergence.summarize`, against the dense
    network; `kept`, the mean number of patches at each stage, if it is adaptive; and `each`, three
    lists over the images of the source, in order: `kl`, nats, and as 1 or 0 whether the prediction
    `agrees` with the dense network's and whether it is `right`.
  """
  network = contender.network
  rows = _rows(contender.execution(), network, plan, source, contender.title)
  result = _summary(rows, *contender.gmacs(rows.get("kept")), network.arch)
  kl = np.asarray(terms.divergence(rows["logits"], dense_logits), np.float64)
  agrees = rows["logits"].argmax(axis=-1) == dense_logits.argmax(axis=-1)
  result |= divergence.summarize(kl, agrees)
  if "kept" in rows:
    result["kept"] = rows["kept"].mean(axis=0).tolist()
  right = _right(rows)
  each = {"kl": kl.round(7), "agrees": agrees.astype(int), "right": right.astype(int)}
  return result | {"each": {name: values.tolist() for name, values in each.items()}}


def kl_above_best(row, best):
  """`kl_above_best`: how much farther a row is from the dense network than the best of its budget.

  Args:
    row: a measurement of `measure`, with `each`.
    best: the one with the least mean divergence, on the same images in the same order.

  Returns:
    A list of three: the mean difference of the divergences, nats, and the ends of its 95 %
    interval. If 0 lies in the interval, these images do not tell the two apart.
  """
  if row is best:
    return [row["kl"] - row["kl"]] * 3  # 0, or NaN if the divergence is not finite
  return list(divergence.paired_interval(row["each"]["kl"], best["each"]["kl"]))


def run_dense(network, images):
  """`Outputs` of the dense execution of a `Network`, for (b, s, s, 3) uint8 images."""
  return network.apply(images, "dense")


def real_dense_gmacs(arch):
  """GMACs that the dense network really computes, see `sparsity.complexity`; a float."""
  return float(complexity.real_gmacs(arch.dense, np.zeros(0)))


def _rows(run, network, plan, source, title):
  """Runs all images: {`label`: (images,), `logits`: (images, classes)}, and `kept`, if any.

  Args:
    run: function of a `Network` and (b, s, s, 3) uint8 images that returns `Outputs`.
    network: a `Network`.
    plan: as for `measure_dense`.
    source: as for `measure_dense`.
    title: name of the contender, for progress.

  Returns:
    Dictionary of arrays; `kept` is (images, stages), and missing if the outputs have none.
  """

  @jax.jit
  def step(network, images):
    outputs = run(network, images)
    rows = {"logits": outputs.logits}
    return rows if outputs.kept is None or not outputs.kept.size else rows | {"kept": outputs.kept}

  columns = []
  progress = Progress(f"evaluating {title}, images", len(source))
  for batch in loader.eval_batches(plan, source, network.preprocessing):
    rows = jax.device_get(step(network, batch["image"])) | {"label": batch["label"]}
    columns.append({name: value[batch["valid"]] for name, value in rows.items()})
    progress.update(min(len(columns) * plan.eval.batch_size, len(source)))
  return {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}


def _summary(rows, gmacs, real_gmacs, arch):
  gmacs, real_gmacs = float(np.mean(gmacs)), float(np.mean(real_gmacs))
  right = 100.0 * _right(rows)
  return {
    "top1": float(right.mean()),
    "top1_error": divergence.standard_error(right),
    "gmacs": gmacs,
    "share": gmacs / complexity.dense_gmacs(arch),
    "real_gmacs": real_gmacs,
    "real_share": real_gmacs / real_dense_gmacs(arch),
    "images": len(rows["label"]),
  }


def _right(rows):
  return rows["logits"].argmax(axis=-1) == rows["label"]
