"""Predictions for image files, from a network in memory or from an exported artifact."""

import jax
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import Progress
from asvit_jax.data.images import load_image
from asvit_jax.network import streaming
from asvit_jax.sparsity.complexity import cost

BATCH = 32  # images per batch for a network in memory, on a CPU; else a pool of `Network.stream`
# Below this many images masked is faster: packed saves milliseconds per image, but takes 10 to 35 s
# to compile, and masked 3 s.
FEW = 1000


def predict(network, paths, execution=None, features=None):
  """Classifies image files with a `Network`; returns the result of `_predict`.

  Args:
    network: the `Network`.
    paths: paths of the images.
    execution: a name of `EXECUTIONS`, by default the network's. Masked replaces packed, with the
      same results, for less than `FEW` images and for `features`, as packed returns no scores.
    features: `Features` that collect the outputs, or None.
  """
  packed = execution is None and network.default_execution() == "packed"
  if packed and (len(paths) < FEW or features is not None):
    execution = "masked"

  def run(images, count):
    outputs = network(images, execution, features is not None)
    if features is not None:
      features.add_outputs(outputs, count)
    return outputs.logits, outputs.kept

  most = BATCH if streaming.platform_of(network) == "cpu" else streaming.pool_of(network)
  return _predict(run, paths, network, max(1, min(most, len(paths))))


def predict_by_artifact(artifact, paths, features=None):
  """Classifies image files with an `Artifact`; returns the result of `_predict`.

  Args:
    artifact: the `Artifact`.
    paths: paths of the images.
    features: `Features` that collect the outputs of an artifact exported with tokens, or None.
  """

  def run(images, count):
    if features is None:
      return artifact(images[:count])
    found = artifact(images[:count], tokens=True, sources=artifact.has_sources)
    logits, kept, tokens, positions, *sources = found
    more = {"sources": sources[0]} if sources else {}
    features.add(tokens=tokens, positions=positions, kept=kept.astype(np.int32), **more)
    return logits, kept

  # An artifact itself pads batches to its sizes.
  return _predict(run, paths, artifact, max(artifact.packed_sizes, default=BATCH))


def _predict(run, paths, network, size):
  """Classifies image files in batches.

  Args:
    run: function of (b, s, s, 3) uint8 images and of the number of images that are not padding; it
      returns logits (b, classes) and kept patches (b, stages), with or without the padding.
    paths: paths of the images.
    network: the `Network` or `Artifact`; `arch`, `preprocessing` and `classes` are read.
    size: number of images in a batch.

  Returns:
    For each image a dictionary: `file`; `top5`, a list of {`label`, `class` (if known),
    `probability`}, best first, empty if the network has no classifier; `kept`, the number of
    patches that each stage keeps; `gmacs`.

  Raises:
    InputError: an image cannot be read, or a prediction is not finite.
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
        "top5": _top5(row, network.classes) if arch.classifies else [],
        "kept": k.astype(int).tolist(),
        "gmacs": float(g),
      }
      for path, row, k, g in zip(batch, logits, kept, gmacs, strict=False)
    ]
    progress.update(len(results))
  return results


def check_finite(finite, files):
  """Raises InputError, naming the first file, if predictions are not finite.

  Args:
    finite: (n,) bool, whether each image's prediction is finite.
    files: n names of files.
  """
  if np.all(finite):
    return
  first = on_a_line(files[int(np.argmin(finite))])
  raise InputError(
    f"the prediction for {first} is not finite (NaN or infinite), and for {np.sum(~finite) - 1} "
    "more: the weights are damaged, or too large for the network's compute type; fetch them again, "
    "or compute in float32"
  )


def _top5(logits, classes):
  exponents = np.exp(logits - logits.max())
  probabilities = exponents / exponents.sum()
  answers = []
  for label in np.argsort(-logits)[:5].tolist():
    name = {} if classes is None else {"class": classes[label]}
    answers.append({"label": label, **name, "probability": float(probabilities[label])})
  return answers
