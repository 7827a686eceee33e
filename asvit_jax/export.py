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

import contextlib
import hashlib
import importlib.metadata
import io
import itertools
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
_NEEDS = {"savedmodel": ("tensorflow",), "onnx": ("jax2onnx", "onnx", "onnxruntime")}
_LIBRARIES = (
  "jax",
  "flax",
  "numpy",
  "tensorflow-cpu",
  "tensorflow",
  "jax2onnx",
  "onnx",
  "onnxruntime",
)


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
  partial, note = path.with_name(path.name + ".partial"), artifacts.note_path(path)
  note_partial = note.with_name(note.name + ".partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)
    _WRITERS[form](arch, params, partial, batch_sizes)
    difference = verify(arch, params, partial, form)
    summary = description | {
      "format": form,
      "prune_before": list(arch.prune_before),
      "versions": _versions(),
      "sha256": _checksums(partial),
      "largest_logit_difference": difference,
    }
    note_partial.write_text(json.dumps(summary, indent=2) + "\n")
    _replace(partial, path)
    os.replace(note_partial, note)
  except OSError as error:
    raise InputError(f"cannot write {form} to {path}: {error}") from error
  finally:
    with contextlib.suppress(OSError):
      _remove(partial)
      _remove(note_partial)
  return summary


def describe(config, arch, classes=None):
  """What `NAME.json` says of a network, apart from the file itself.

  Args:
    config: the config of the run, or the one that the weights were given with.
    arch: its `Architecture`.
    classes: list of class names by label, or None.

  Returns:
    Dictionary.
  """
  return {
    "variant": config.model.variant,
    "budget": config.budget,
    "gmacs_dense": complexity.dense_gmacs(arch),
    "gmacs_target": config.budget and config.budget * complexity.dense_gmacs(arch),
    "image_size": arch.image_size,
    "patch_size": arch.patch_size,
    "num_classes": arch.classes,
    "classes": classes,
    "preprocessing": {
      "resize": "shorter side to image_size ÷ crop_ratio, bicubic; centre crop of image_size",
      "crop_ratio": config.data.crop_ratio,
      "input": "uint8 RGB, (b, image_size, image_size, 3); normalised inside",
      "mean": list(transforms.IMAGENET_MEAN),
      "std": list(transforms.IMAGENET_STD),
    },
  }


def check_libraries(form):
  """Raises InputError where a library that the format needs is missing."""
  for library in _NEEDS.get(form, ()):
    artifacts.require(library)


def verify(arch, params, path, form):
  """Reloads an artifact and holds it against the network in memory.

  Random and extreme images run in the masked execution and in every program of the artifact.
  Images with a score so near its threshold that rounding decides are left out.

  Args:
    arch: an `Architecture`.
    params: its parameters.
    path: of the artifact.
    form: of `FORMATS`.

  Returns:
    The largest difference between logits; 0.0 for safetensors, which must agree to the bit.

  Raises:
    InputError: they differ.
  """
  if form == "safetensors":
    if not _identical(params, weights.load(arch, path)):
      raise InputError(f"{path} does not hold the weights that were written; nothing was exported")
    return 0.0
  images = _test_images(arch.image_size)
  outputs = jax.device_get(_reference(arch)(params, images))
  certain = outputs["certain"]
  artifact = artifacts.load(path, form)
  largest = 0.0
  free = next(n for n in itertools.count(len(images)) if n not in artifact.packed_sizes)
  for size in (free, *artifact.packed_sizes):
    rows = np.arange(size) % len(images)
    logits, kept = artifact(images[rows])
    differ = (kept != outputs["kept"][rows]).any(axis=-1) & certain[rows]
    error = np.abs(logits - outputs["logits"][rows])[certain[rows]].max(initial=0.0)
    largest = max(largest, float(error))
    if differ.any() or not error <= TOLERANCE:
      raise InputError(
        f"the {form} artifact, reloaded, does not do what the network does (batch of {size}: "
        f"logits differ by {error:.2g}, {int(differ.sum())} images keep other tokens): nothing was "
        "exported; please report this with the versions of `pip list`"
      )
  return largest


def _reference(arch):
  """The masked (or dense) execution, and which images no rounding can decide."""
  graphdef, _ = vit.abstract(arch)

  @jax.jit
  def run(params, images):
    model = nnx.merge(graphdef, params)
    execution = executions.masked if arch.prune_before else executions.dense
    outputs = execution(model, transforms.normalize(images))
    certain = jnp.ones(len(images), bool)
    if arch.prune_before:
      before = jnp.concatenate([jnp.ones_like(outputs.keep[:, :1]), outputs.keep[:, :-1]], axis=1)
      near = jnp.abs(outputs.scores - model.thresholds[...][:, None]) < 1e-6
      certain = ~(near & (before > 0)).any(axis=(1, 2))
    return {"logits": outputs.logits, "kept": outputs.kept, "certain": certain}

  return run


def _test_images(size):
  """(8, s, s, 3) uint8: noise of several kinds, a gradient, black, white."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (3, size, size, 3))
  coarse = np.kron(
    rng.integers(0, 256, (2, 7, 7, 3)), np.ones((1, -(-size // 7), -(-size // 7), 1))
  )
  gradient = np.broadcast_to(np.linspace(0, 255, size)[None, :, None, None], (1, size, size, 3))
  flat = np.stack([np.zeros((size, size, 3)), np.full((size, size, 3), 255)])
  images = [noise, coarse[:, :size, :size], gradient, flat]
  return np.concatenate(images).astype(np.uint8)


def _program(arch, execution):
  """Function of ({flat name: parameter}, images) that an artifact runs."""
  graphdef, abstract = vit.abstract(arch)
  structure = jax.tree.structure(abstract)

  def program(flat, images):
    params = jax.tree.unflatten(structure, [flat[name] for name in _names(abstract)])
    outputs = execution(nnx.merge(graphdef, params), transforms.normalize(images))
    return {"logits": outputs.logits, "kept": outputs.kept}

  return program


def _programs(arch, batch_sizes):
  """{name: (program, batch size or None for any)} of an artifact."""
  if not arch.prune_before:
    return {"dense": (_program(arch, executions.dense), None)}
  packed = _program(arch, inference.EXECUTIONS["packed"])
  return {"masked": (_program(arch, executions.masked), None)} | {
    f"packed_{size}": (packed, size) for size in batch_sizes
  }


def _write_safetensors(arch, params, path, batch_sizes):
  del arch, batch_sizes
  weights.save(path, params, thresholds_as_metadata=True)


def _write_stablehlo(arch, params, path, batch_sizes):
  """A zip archive: `weights.npz`, and a `NAME.stablehlo` a program."""
  from jax import export as jax_export  # needs flatbuffers, which it does not declare

  flat = _flatten(params)
  specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), flat)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
    buffer = io.BytesIO()
    np.savez(buffer, **flat)
    archive.writestr("weights.npz", buffer.getvalue())
    for name, (program, size) in _programs(arch, batch_sizes).items():
      batch = size or jax_export.symbolic_shape("b")[0]
      images = jax.ShapeDtypeStruct((batch, arch.image_size, arch.image_size, 3), jnp.uint8)
      exported = jax_export.export(jax.jit(program), platforms=PLATFORMS)(specs, images)
      archive.writestr(f"{name}.stablehlo", exported.serialize())


def _write_savedmodel(arch, params, path, batch_sizes):
  """A signature a program; `serving_default` takes any number of images."""
  tf = artifacts.require("tensorflow")
  from jax.experimental import jax2tf

  module = tf.Module()
  module.weights = {name: tf.Variable(value) for name, value in _flatten(params).items()}

  def signature(program, size):
    converted = jax2tf.convert(
      program,
      polymorphic_shapes=[None, f"({size or 'b'}, _, _, _)"],
      native_serialization_platforms=PLATFORMS,
      with_gradient=False,
    )
    shape = (size, arch.image_size, arch.image_size, 3)
    return tf.function(
      lambda images: converted(dict(module.weights), images),
      input_signature=[tf.TensorSpec(shape, tf.uint8, name="images")],
      autograph=False,
    )

  signatures = {
    name if size else "serving_default": signature(program, size)
    for name, (program, size) in _programs(arch, batch_sizes).items()
  }
  try:
    tf.saved_model.save(module, str(path), signatures=signatures)
  except tf.errors.OpError as error:
    raise OSError(str(error)) from error


def _write_onnx(arch, params, path, batch_sizes):
  """Masked: the converter knows no `lax.switch` of more than two branches."""
  del batch_sizes
  jax2onnx, onnx = artifacts.require("jax2onnx"), artifacts.require("onnx")
  from jax import export as jax_export

  program = _program(arch, executions.masked if arch.prune_before else executions.dense)
  flat = _flatten(params)

  def forward(images):
    outputs = program(flat, images)
    return outputs["logits"], outputs["kept"]

  batch = jax_export.symbolic_shape("b")[0]
  images = jax.ShapeDtypeStruct((batch, arch.image_size, arch.image_size, 3), jnp.uint8)
  model = jax2onnx.to_onnx(
    forward, [images], input_names=["images"], output_names=["logits", "kept"]
  )
  onnx.save(model, str(path))


_WRITERS = {
  "safetensors": _write_safetensors,
  "stablehlo": _write_stablehlo,
  "savedmodel": _write_savedmodel,
  "onnx": _write_onnx,
}


def _names(params):
  paths = jax.tree_util.tree_leaves_with_path(params)
  return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]


def _flatten(params):
  return dict(zip(_names(params), map(np.asarray, jax.tree.leaves(params)), strict=True))


def _identical(a, b):
  same = jax.tree.map(lambda x, y: np.array_equal(x, y), a, b)
  return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(same))


def _versions():
  found = {}
  for library in _LIBRARIES:
    try:
      found[library] = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _checksums(path):
  """SHA-256 of a file, or {relative name: SHA-256} of the files of a directory."""
  if path.is_file():
    return _sha256(path)
  files = sorted(p for p in path.rglob("*") if p.is_file())
  return {str(p.relative_to(path)): _sha256(p) for p in files}


def _sha256(path):
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path):
  if path.is_dir():
    shutil.rmtree(path)
  elif path.exists():
    path.unlink()


def _replace(partial, path):
  """Gives `partial` its name; a directory that had it before is moved aside until that is done."""
  before = path.with_name(path.name + ".before")
  _remove(before)
  if path.is_dir():
    os.replace(path, before)
  try:
    os.replace(partial, path)
  except OSError:
    if before.exists():
      os.replace(before, path)
    raise
  _remove(before)
