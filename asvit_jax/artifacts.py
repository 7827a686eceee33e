"""Runs exported artifacts, each with the library that it is made for."""

import functools
import importlib
import io
import json
import pathlib
import zipfile

import numpy as np

from asvit_jax.errors import InputError

# What each format needs installed, beside what this package needs anyway.
_PACKAGES = {
  "tensorflow": "tensorflow-cpu",
  "jax2onnx": "jax2onnx",
  "onnx": "onnx",
  "onnxruntime": "onnxruntime",
}


class Artifact:
  """A loaded artifact: call it with (b, s, s, 3) uint8 images of any number.

  Attributes:
    packed_sizes: batch sizes of its packed programs, increasing; empty without.
  """

  def __init__(self, programs):
    """`programs` maps a batch size, or None for any, to a function of images."""
    self._programs = programs
    self.packed_sizes = sorted(size for size in programs if size is not None)

  def __call__(self, images):
    """(b, s, s, 3) uint8 -> (b, classes) logits and (b, stages) kept, NumPy arrays.

    A number of images that a packed program has runs on it; any other number on the program
    for all numbers.
    """
    program = self._programs.get(len(images), self._programs[None])
    logits, kept = program(images)
    return np.asarray(logits), np.asarray(kept)


def note_path(path):
  """Where the description of an artifact stands."""
  path = pathlib.Path(path)
  return path.with_name(path.name + ".json")


def read_note(path):
  """The description of an artifact, a dictionary.

  Raises:
    InputError: no artifact there, or no description beside it.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise InputError(f"artifact {path}: no such file; expected what export.py wrote")
  try:
    note = json.loads(note_path(path).read_text())
    note["format"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(
      f"artifact {path}: {note_path(path).name}, which says what it is, is missing or damaged "
      f"({type(error).__name__}); keep the two together"
    ) from error
  return note


def load(path, form):
  """Loads an artifact.

  Args:
    path: of the artifact.
    form: "stablehlo", "savedmodel" or "onnx".

  Returns:
    `Artifact`.

  Raises:
    InputError: a missing library, a damaged artifact, or a format that cannot be run.
  """
  if form not in _LOADERS:
    raise InputError(f"artifact {path}: {form} holds weights only; give it as --weights")
  try:
    return Artifact(_LOADERS[form](pathlib.Path(path)))
  except InputError:
    raise
  except Exception as error:  # each library raises its own types; the cause is always the file
    raise InputError(
      f"artifact {path} cannot be loaded as {form} ({type(error).__name__}: {str(error)[:200]}); "
      "it may be truncated: export it again"
    ) from error


def require(library):
  """Imports an optional library, or raises InputError with the command that installs it."""
  try:
    return importlib.import_module(library)
  except ImportError as error:
    raise InputError(
      f"{library} is needed for this format and is not installed: "
      f"`pip install -r requirements-export.txt` (or {_PACKAGES[library]} alone)"
    ) from error


def _load_stablehlo(path):
  import jax
  from jax import export

  with zipfile.ZipFile(path) as archive:
    weights = dict(np.load(io.BytesIO(archive.read("weights.npz"))))
    exported = {
      name.removesuffix(".stablehlo"): export.deserialize(archive.read(name))
      for name in archive.namelist()
      if name.endswith(".stablehlo")
    }
  weights = jax.device_put(weights)

  def run(program, images):
    outputs = program(weights, images)
    return outputs["logits"], outputs["kept"]

  return {
    _size(name): functools.partial(run, jax.jit(program.call)) for name, program in exported.items()
  }


def _load_savedmodel(path):
  tf = require("tensorflow")
  module = tf.saved_model.load(str(path))

  def run(signature, images):
    outputs = signature(images=tf.constant(images))
    return outputs["logits"].numpy(), outputs["kept"].numpy()

  return {
    _size(name): functools.partial(run, signature) for name, signature in module.signatures.items()
  }


def _load_onnx(path):
  onnxruntime = require("onnxruntime")
  session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
  return {None: lambda images: session.run(["logits", "kept"], {"images": images})}


def _size(name):
  """The batch size in the name of a program; None where it takes any."""
  return int(name.removeprefix("packed_")) if name.startswith("packed_") else None


_LOADERS = {
  "stablehlo": _load_stablehlo,
  "savedmodel": _load_savedmodel,
  "onnx": _load_onnx,
}
