"""Predictions for image files, from a network in memory or from an exported artifact."""

import jax
import numpy as np

from asvit_jax.core.progress import Progress
from asvit_jax.data.images import load_image
from asvit_jax.sparsity.complexity import cost

BATCH = 32  # images at a time of a network in memory


def predict(network, paths, execution=None):
  """Classifies image files with a `Network`; see `_predict`."""

  def run(images):
    outputs = network(images, execution)
    return outputs.logits, outputs.kept

  return _predict(run, paths, network, (min(BATCH, len(paths)),))


def predict_by_artifact(artifact, paths):
  """Classifies image files with an `Artifact`; see `_predict`."""
  return _predict(artifact, paths, artifact, artifact.packed_sizes or (min(BATCH, len(paths)),))


def _predict(run, paths, network, sizes):
  """Classifies image files.

  Args:
    run: function of (b, s, s, 3) uint8 images that returns (b, classes) logits and (b, stages)
      patches kept.
    paths: of the images.
    network: what it is of: `arch`, `preprocessing` and `classes` are read.
    sizes: batch sizes that `run` is fast at.

  Returns:
    For each image a dictionary: `file`; `top5`, of {`label`, `class` (where known),
    `probability`}, best first; `kept`, the patches that each stage keeps; `gmacs`.

  Raises:
    InputError: an image that cannot be read.
  """
  results, arch = [], network.arch
  progress = Progress("predicting, images", len(paths))
  for batch, size in _batches(paths, sizes):
    images = np.zeros((size, *arch.image_shape), np.uint8)
    for i, path in enumerate(batch):
      images[i] = load_image(path, arch.image_size, network.preprocessing)
    logits, kept = jax.device_get(run(images))
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


def _batches(paths, sizes):
  """Splits paths into (batch, size to pad it to), with as little padding as the sizes allow."""
  start = 0
  while start < len(paths):
    left = len(paths) - start
    size = max((s for s in sizes if s <= left), default=min(sizes))
    yield paths[start : start + size], size
    start += size


def _top5(logits, classes):
  exponents = np.exp(logits - logits.max())
  probabilities = exponents / exponents.sum()
  answers = []
  for label in np.argsort(-logits)[:5].tolist():
    name = {} if classes is None else {"class": classes[label]}
    answers.append({"label": label, **name, "probability": float(probabilities[label])})
  return answers
