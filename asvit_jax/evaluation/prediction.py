"""Predictions for image files, from a network in memory or from an exported artifact."""

import jax
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import Progress
from asvit_jax.data.images import load_image
from asvit_jax.sparsity.complexity import cost

BATCH = 32  # images at a time of a network in memory
# Packed compiles for 10 to 35 seconds, a batch of masked for 3, and saves milliseconds an image.
FEW = 1000


def predict(network, paths, execution=None, features=None):
  """Classifies image files with a `Network`; see `_predict`.

  Args:
    network: it.
    paths: of the images.
    execution: of `EXECUTIONS`, by default the network's; masked instead of packed, whose results
      are the same, for less than `FEW` images, and for `features`, as packed knows no scores.
    features: `Features` that take what the network says of them, or None.
  """
  packed = execution is None and network.default_execution() == "packed"
  if packed and (len(paths) < FEW or features is not None):
    execution = "masked"

  def run(images, count):
    outputs = network(images, execution, features is not None)
    if features is not None:
      features.add_outputs(outputs, count)
    return outputs.logits, outputs.kept

  return _predict(run, paths, network, max(1, min(BATCH, len(paths))))


def predict_by_artifact(artifact, paths, features=None):
  """Classifies image files with an `Artifact`; see `_predict`.

  Args:
    artifact: it.
    paths: of the images.
    features: `Features` that take what an artifact says of them that was exported with tokens.
  """

  def run(images, count):
    if features is None:
      return artifact(images[:count])
    logits, kept, tokens, positions = artifact(images[:count], tokens=True)
    features.add(tokens=tokens, positions=positions, kept=kept.astype(np.int32))
    return logits, kept

  # An artifact fills up itself, to the sizes that it has.
  return _predict(run, paths, artifact, max(artifact.packed_sizes, default=BATCH))


def _predict(run, paths, network, size):
  """Classifies image files.

  Args:
    run: function of (b, s, s, 3) uint8 images, and how many of them are some, that returns logits
      (b, classes) and patches kept (b, stages), of all or of those.
    paths: of the images.
    network: what it is of: `arch`, `preprocessing` and `classes` are read.
    size: images at a time.

  Returns:
    For each image a dictionary: `file`; `top5`, of {`label`, `class` (where known),
    `probability`}, best first; `kept`, the patches that each stage keeps; `gmacs`.

  Raises:
    InputError: an image that cannot be read, or a prediction that is not finite.
  """
  results, arch = [], network.arch
  progress = Progress("predicting, images", len(paths))
  for start in range(0, len(paths), size):
    batch = paths[start : start + size]
    images = np.zeros((size, *arch.image_shape), np.uint8)
    for i, path in enumerate(batch):
      images[i] = load_image(path, arch.image_size, network.preprocessing)
    logits, kept = jax.device_get(run(images, len(batch)))
    logits, kept = logits[: len(batch)], kept[: len(batch)]
    check_finite(np.isfinite(logits).all(axis=-1) & np.isfinite(kept).all(axis=-1), batch)
    gmacs = cost(arch, np.asarray(kept))
    results += [
      {
        "file": str(path),
        "top5": _top5(row, network.classes),
        "kept": k.astype(int).tolist(),
        "gmacs": float(g),
      }
      for path, row, k, g in zip(batch, logits, kept, gmacs, strict=False)
    ]
    progress.update(len(results))
  return results


def check_finite(finite, files):
  """Raises InputError, with the first file, where what a network says of images is not finite.

  Args:
    finite: (n,) bool, of each image.
    files: n names.
  """
  if np.all(finite):
    return
  first = on_a_line(files[int(np.argmin(finite))])
  raise InputError(
    f"the prediction for {first} is not finite (NaN or infinite), and for {np.sum(~finite) - 1} "
    "more: the weights are damaged, or too large for the type that the network computes in; load "
    "them again from where they come, or compute in float32"
  )


def _top5(logits, classes):
  exponents = np.exp(logits - logits.max())
  probabilities = exponents / exponents.sum()
  answers = []
  for label in np.argsort(-logits)[:5].tolist():
    name = {} if classes is None else {"class": classes[label]}
    answers.append({"label": label, **name, "probability": float(probabilities[label])})
  return answers
