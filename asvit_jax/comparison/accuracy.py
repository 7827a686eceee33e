"""What a contender predicts, and what that costs."""

import jax
import numpy as np

from asvit_jax.core.progress import Progress
from asvit_jax.data import loader
from asvit_jax.sparsity import complexity


def measure_dense(network, config, source):
  """The baseline.

  Args:
    network: a `Network`, dense.
    config: a config; `data` and `eval.batch_size` are read.
    source: a `Source`.

  Returns:
    Dictionary of `top1` in percent, `gmacs` and `share` by the paper's count, `real_gmacs` and
    `real_share`, the number of `images`; and (images,) int predictions.
  """
  rows = _rows(run_dense, network, config, source, "dense")
  gmacs = complexity.dense_gmacs(network.arch), real_dense_gmacs(network.arch)
  return _summary(rows, *gmacs, network.arch), rows["prediction"]


def measure(contender, config, source, dense_predictions):
  """A contender.

  Args:
    contender: a `Contender`, calibrated.
    config: as above.
    source: as above.
    dense_predictions: (images,) of `measure_dense`.

  Returns:
    Dictionary as above, and `agreement`, the percentage of images that it predicts as the dense
    network does; `kept`, the mean patches a stage, where it is adaptive.
  """
  network = contender.network
  rows = _rows(contender.execution(), network, config, source, contender.title)
  result = _summary(rows, *contender.gmacs(rows.get("kept")), network.arch)
  result["agreement"] = 100 * float((rows["prediction"] == dense_predictions).mean())
  if "kept" in rows:
    result["kept"] = rows["kept"].mean(axis=0).tolist()
  return result


def run_dense(network, images):
  """`Outputs` of a `Network` without pruning, of (b, s, s, 3) uint8 images."""
  return network.apply(images, "dense")


def real_dense_gmacs(arch):
  """GMACs that the dense network really computes, a float."""
  return float(complexity.real_gmacs(arch.dense, np.zeros(0)))


def _rows(run, network, config, source, title):
  """{`label`, `prediction`, (images,), and `kept`, (images, stages), where there is some}."""

  @jax.jit
  def step(network, images):
    outputs = run(network, images)
    rows = {"prediction": outputs.logits.argmax(axis=-1)}
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
  return {
    "top1": 100 * float((rows["prediction"] == rows["label"]).mean()),
    "gmacs": gmacs,
    "share": gmacs / complexity.dense_gmacs(arch),
    "real_gmacs": real_gmacs,
    "real_share": real_gmacs / real_dense_gmacs(arch),
    "images": len(rows["label"]),
  }
