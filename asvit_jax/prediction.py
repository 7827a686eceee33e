"""Predictions for image files, from a network in memory or from an exported artifact."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from asvit_jax import artifacts, cli, complexity, inference, vit
from asvit_jax.data import transforms
from asvit_jax.errors import InputError

BATCH = 32  # images at a time of a network in memory


def in_memory(arch, params, execution=None, dtype=jnp.float32):
  """A network as a function of images.

  Args:
    arch: an `Architecture`.
    params: its parameters; with thresholds it prunes.
    execution: a key of `inference.EXECUTIONS`; by default packed where there are thresholds.
    dtype: compute type.

  Returns:
    Function of (b, s, s, 3) uint8 images that returns (b, classes) float32 logits and (b, stages)
    float32 patches kept; compiled once for every b.
  """
  arch = arch if "thresholds" in params else arch.dense
  forward = inference.EXECUTIONS[execution or ("packed" if arch.prune_before else "dense")]
  graphdef, _ = vit.abstract(arch, dtype=dtype)

  @jax.jit
  def run(params, images):
    outputs = forward(nnx.merge(graphdef, params), transforms.normalize(images))
    return outputs.logits, outputs.kept

  return lambda images: run(params, images)


def check_files(paths):
  """Raises InputError for the first path that is not a readable image, judged by its header."""
  for path in paths:
    try:
      with Image.open(path):
        pass
    except Image.DecompressionBombError as error:
      raise InputError(f"image {path} is too large ({error}): make it smaller") from error
    except OSError as error:  # PIL's own errors are among them
      reason = error.strerror or "no known image format"
      raise InputError(f"image {path} cannot be read ({reason}): check the path") from error


def predict(run, paths, arch, crop_ratio, sizes=(), classes=None):
  """Classifies image files.

  Args:
    run: of `in_memory`, or an `artifacts.Artifact`.
    paths: of the images.
    arch: `Architecture` of the network.
    crop_ratio: see `transforms.center_crop`.
    sizes: batch sizes that `run` is fast at; () for one batch of up to `BATCH`.
    classes: names of the classes by label, or None.

  Returns:
    For each image a dictionary: `file`; `top5`, of {`label`, `class` (where known),
    `probability`}, best first; `kept`, the patches that each stage keeps; `gmacs`.

  Raises:
    InputError: an image that cannot be read.
  """
  results = []
  progress = cli.Progress("predicting, images", len(paths))
  for batch, size in _batches(paths, sizes or (min(BATCH, len(paths)),)):
    images = np.zeros((size, arch.image_size, arch.image_size, 3), np.uint8)
    for i, path in enumerate(batch):
      images[i] = load_image(path, arch.image_size, crop_ratio)
    logits, kept = jax.device_get(run(images))
    results += [
      {"file": str(path), "top5": _top5(row, classes), **_cost(arch, k)}
      for path, row, k in zip(batch, logits, kept, strict=False)
    ]
    progress.update(len(results))
  return results


def load_image(path, size, crop_ratio):
  """An image file as the network sees it, (size, size, 3) uint8; InputError if unreadable."""
  try:
    encoded = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise InputError(f"image {path} cannot be read ({error.strerror}): check the path") from error
  return np.asarray(transforms.center_crop(transforms.decode(encoded, str(path)), size, crop_ratio))


def architecture(note):
  """The `Architecture` of an artifact, from its description.

  Raises:
    InputError: a description of another version.
  """
  try:
    return dataclasses.replace(
      vit.VARIANTS[note["variant"]],
      image_size=note["image_size"],
      patch_size=note["patch_size"],
      classes=note["num_classes"],
    )
  except KeyError as error:
    raise InputError(
      f"the artifact's description lacks or does not know {error}: export it again"
    ) from error


def from_artifact(path):
  """Loads an artifact and its description.

  Args:
    path: of the artifact; its `.json` stands beside it.

  Returns:
    (run, `Architecture`, description, batch sizes it is fast at), see `predict`.

  Raises:
    InputError: nothing there, or damaged.
  """
  note = artifacts.read_note(path)
  run = artifacts.load(path, note["format"])
  return run, architecture(note), note, tuple(run.packed_sizes)


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


def _cost(arch, kept):
  if not len(kept):
    return {"kept": [], "gmacs": complexity.dense_gmacs(arch)}
  gmacs = complexity.gmacs(arch, jnp.asarray(kept, jnp.float32))
  return {"kept": kept.astype(int).tolist(), "gmacs": float(gmacs)}
