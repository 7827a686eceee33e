"""Writes weights as safetensors files."""

import json

import numpy as np
import safetensors.numpy

from asvit_jax import vit
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.vit import description as descriptions
from asvit_jax.weights.checks import check_numbers
from asvit_jax.weights.formats.safetensors import DESCRIPTION, THRESHOLDS, check_header
from asvit_jax.weights.names import check_fits, to_timm

# Suffixes of other formats, under which others would misread a safetensors file.
_OTHER_SUFFIXES = frozenset(
  (
    *(".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pickle", ".npz", ".npy", ".h5", ".hdf5"),
    *(".keras", ".pb", ".tflite", ".onnx", ".stablehlo", ".mlir", ".msgpack", ".gguf", ".zip"),
    *(".gz", ".tgz", ".json", ".jsonl", ".txt", ".csv", ".md", ".html", ".py", ".png", ".jpg"),
    *(".jpeg", ".yaml", ".yml", ".toml", ".parquet", ".arrow", ".orbax", ".log", ".pdf"),
  )
)


def check_name(path):
  """Raises InputError for a path whose suffix belongs to another format than safetensors."""
  suffix = storage.path(path).suffix
  if suffix.lower() in _OTHER_SUFFIXES:
    raise InputError(
      f"cannot write weights to {path}: they are written as safetensors, but {suffix} is another "
      "format: give a name that ends in .safetensors"
    )


def save(path, params, description=None, thresholds_as_metadata=False, arch=None):
  """Writes parameters, thresholds included, as a safetensors file, atomically.

  Args:
    path: path of the file.
    params: parameters of a network.
    description: `Network.describe()`, which is stored in the file's header; None for none.
    thresholds_as_metadata: stores the thresholds in the header instead of as tensors, so that timm
      loads the file without changes. Loading accepts both.
    arch: the `Architecture` that the parameters must fit, and that is described; None for any.

  Raises:
    InputError: the file cannot be written; its suffix belongs to another format; or its content
      could not be loaded again: parameters that do not fit or are not finite, or a description or
      thresholds that `vit.description` does not read.
  """
  check_name(path)
  tensors, what = to_timm(params), f"what would be saved as {path}"
  if arch is not None:
    budgets = len((description or {}).get("budgets", ()))
    check_fits(arch if vit.prunes(params) else arch.dense, tensors, what, budgets)
  check_numbers(tensors, what)
  metadata = {"format": "pt"}  # timm and transformers expect this entry
  if description is not None:
    metadata[DESCRIPTION] = json.dumps(description)
    descriptions.loads(metadata[DESCRIPTION], what, descriptions.UNREADABLE)
  if thresholds_as_metadata and vit.prunes(params):
    metadata[THRESHOLDS] = json.dumps(np.asarray(params["thresholds"]).tolist())
    named = f"{what}: its thresholds as metadata"
    descriptions.load_thresholds(metadata[THRESHOLDS], named, descriptions.UNREADABLE)
    tensors = {k: v for k, v in tensors.items() if not k.startswith("score_predictor.")}
  # Not by safetensors itself, which would make the file readable by its owner only.
  content = safetensors.numpy.save(tensors, metadata)
  check_header(content, what)
  storage.write(path, content, "weights")
