"""What a contender predicts, and what that costs."""

import jax
import numpy as np

from asvit_jax.core.progress import Progress
from asvit_jax.data import loader
from asvit_jax.evaluation import divergence
from asvit_jax.losses import terms
from asvit_jax.sparsity import complexity


def measure_dense(network, config, source):
  """The baseline.

  Args:
    network: a `Network`, dense.
    config: a config; `data` and `eval.batch_size` are read.
    source: a `Source`.

  Returns:
    Dictionary of `top1` in percent and its standard error `top1_error`, `gmacs` and `share` by the
    paper's count, `real_gmacs` and `real_share`, the number of `images`; and (images, classes)
    logits.
  """
  rows = _rows(run_dense, network, config, source, "dense")
  gmacs = complexity.dense_gmacs(network.arch), real_dense_gmacs(network.arch)
  return _summary(rows, *gmacs, network.arch), rows["logits"]


def measure(contender, config, source, dense_logits):
  """A contender.

  Args:
    contender: a `Contender`, calibrated.
    config: as above.
    source: as above.
    dense_logits: (images, classes) of `measure_dense`.

  Returns:
    Dictionary as above, and what `divergence.summarize` says of it and the dense network; `kept`,
    the mean patches a stage, where it is adaptive; and `each`, for every image in the order of the
    source its `kl`, and whether it `agrees` with the dense network and is `right`, 1 or 0.
  """
  network = contender.network
  rows = _rows(contender.execution(), network, config, source, contender.title)
  result = _summary(rows, *contender.gmacs(rows.get("kept")), network.arch)
  kl = np.asarray(terms.divergence(rows["logits"], dense_logits), np.float64)
  agrees = rows["logits"].argmax(axis=-1) == dense_logits.argmax(axis=-1)
  result |= divergence.summarize(kl, agrees)
  if "kept" in rows:
    result["kept"] = rows["kept"].mean(axis=0).tolist()
  right = _right(rows)
  each = {"kl": kl.round(7), "agrees": agrees.astype(int), "right": right.astype(int)}
  return result | {"each": {name: values.tolist() for name, values in each.items()}}


def run_dense(network, images):
  """`Outputs` of a `Network` without pruning, of (b, s, s, 3) uint8 images."""
  return network.apply(images, "dense")


def real_dense_gmacs(arch):
  """GMACs that the dense network really computes, a float."""
  return float(complexity.real_gmacs(arch.dense, np.zeros(0)))


def _rows(run, network, config, source, title):
  """{`label` (images,), `logits` (images, classes), `kept` (images, stages) if there is some}."""

  @jax.jit
  def step(network, images):
    outputs = run(network, images)
    rows = {"logits": outputs.logits}
    return rows if outputs.kept is None or not outputs.kept.size else rows | {"kept": outputs.kept}

  columns = []
  progress = Progress(f"evaluating {title}, images", len(source))
  for batch in loader.eval_batches(config, source, network.preprocessing):
    rows = jax.device_get(step(network, batch["image"])) | {"label": batch["label"]}
    columns.append({name: value[batch["valid"]] for name, value in rows.items()})
    progress.update(min(len(columns) * config.eval.batch_size, len(source)))
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
