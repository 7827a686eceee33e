"""Checkpoints as files that others run: safetensors, StableHLO, SavedModel, ONNX.

| format | execution | runs with |
|---|---|---|
| safetensors | weights only, timm's names | timm (dense part), `weights.load` |
| stablehlo | packed at given batch sizes; masked at any | jax alone, on CPU, CUDA and TPU |
| savedmodel | the same | TensorFlow |
| onnx | masked at any batch size | ONNX Runtime |

All but safetensors take uint8 images (b, s, s, 3) and return `logits` (b, classes) float32 and
`kept` (b, stages) float32, the patches that each stage keeps. Beside every artifact stands
`NAME.json`, which says what it is. An artifact is written under another name, reloaded, run, held
against the network in memory, and only then given its name.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from asvit_jax import artifacts, complexity, executions, inference, vit, weights
from asvit_jax.data import transforms
from asvit_jax.errors import InputError

FORMATS = ("safetensors", "stablehlo", "savedmodel", "onnx")
PLATFORMS = ("cpu", "cuda", "tpu")
BATCH_SIZES = (1, 32)
TOLERANCE = 1e-3  # of logits, artifact against memory; other compilers sum in another order
_LIBRARIES = ("jax", "flax", "numpy", "tensorflow", "jax2onnx", "onnx", "onnxruntime")


def export(arch, params, path, form, description, batch_sizes=BATCH_SIZES):
  """Writes an artifact and verifies it.

  Args:
    arch: an `Architecture`; of a pruned network where `params` has thresholds.
    params: its parameters.
    path: of the artifact: a file, or for SavedModel a directory. Replaced where it exists.
    form: of `FORMATS`.
    description: dictionary that becomes part of `NAME.json`; see `describe`.
    batch_sizes: of the packed programs.

  Returns:
    Dictionary: the content of `NAME.json`, with the largest difference of logits found.

  Raises:
    InputError: a missing library, a path that cannot be written, or an artifact that does not do
      what the network in memory does. Nothing is left under `path` then but what was there before.
  """
  path = pathlib.Path(path)
  if "thresholds" not in params:
    arch = arch.dense
  partial = path.with_name(path.name + ".partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)
    _WRITERS[form](arch, params, partial, batch_sizes)
    difference = verify(arch, params, partial, form, batch_sizes)
    summary = description | {
      "format": form,
      "versions": _versions(),
      "sha256": _checksums(partial),
      "largest_logit_difference": difference,
    }
    note = artifacts.note_path(path)
    note_partial = note.with_name(note.name + ".partial")
    note_partial.write_text(json.dumps(summary, indent=2) + "\n")
    _replace(partial, path)
    os.replace(note_partial, note)
  except OSError as error:
    raise InputError(f"cannot write {form} to {path}: {error}") from error
  finally:
    _remove(partial)
  return summary
