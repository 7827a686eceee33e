"""Writes artifacts; each is reloaded, run and compared with the network before it gets its name."""

import contextlib
import dataclasses
import importlib.metadata
import json

import numpy as np

from asvit_jax.core import devices, schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.sizes import check_batches
from asvit_jax.export import notes
from asvit_jax.export.formats import FORMATS
from asvit_jax.export.programs import BATCH_SIZES, execution_for_any_number, output_names
from asvit_jax.sparsity import complexity
from asvit_jax.vit import description as descriptions

# The schema by which a note is recognised among other files.
_NOTE = schema.table(
  {"format": schema.text(), "sha256": notes.CHECKSUMS}, ["format", "preprocessing"]
)
_LIBRARIES = ("jax", "flax", "numpy")  # libraries involved in every artifact


def export(network, path, form, batch_sizes=BATCH_SIZES, budget=None, **options):
  """Writes and verifies an artifact, with its description `NAME.json` beside it.

  Args:
    network: a `Network`. An artifact computes in float32, whatever the network's compute type.
    path: path of the artifact: a file or, for some formats, a directory. An existing file is
      replaced; an existing directory only if it is empty or an earlier artifact, according to the
      note beside it.
    form: a name of `FORMATS`.
    batch_sizes: batch sizes of the packed programs.
    budget: share of the dense GMACs for which the thresholds are, if known.
    **options: options of the format, see `Format`. `tokens=True`: programs also return the tokens,
      their positions and the sources of the patches. `opset=N`: version of ONNX's operators.
      `execution="fixed"`: programs keep the network's `counts` of every image, with actually fewer
      operations, instead of masked and packed ones; the default of a network that reached its
      calibrated speed that way.
      `execution="packed"`, ONNX only: one program, for one image at a time, that computes only the
      tokens that the image keeps.

  Returns:
    Dictionary: the content of `NAME.json`, including the largest difference of logits found.

  Raises:
    InputError: the format is unknown, a library is missing, the path cannot be written, or the
      artifact's outputs differ from the network's. `path` is then unchanged.
  """
  sizes = check_batches(batch_sizes)
  options = {name: value for name, value in options.items() if value not in (None, False)}
  check_path(form, path)
  path = storage.path(path)
  check_libraries(form)
  check_options(form, options)
  network = dataclasses.replace(network, dtype="float32")
  if network.default_execution() == "fixed" and "execution" in FORMATS[form].options:
    options.setdefault("execution", "fixed")  # the execution that reached its speed-up
  execution = execution_for_any_number(network, options.get("execution"))
  if execution not in ("fixed", "packed"):  # the formats' default needs no option
    options.pop("execution", None)
  chosen = {name: options[name] for name in ("execution",) if name in options}
  with _replacing(path, FORMATS[form]) as (artifact, note):
    FORMATS[form].write(network, artifact, sizes, **options)
    with devices.exact():  # else an accelerator's rounding would count as a difference
      difference = FORMATS[form].verify(network, artifact, **chosen)
    content = _describe(network, budget) | {
      "format": form,
      "prune_before": list(network.arch.prune_before) if network.prunes else [],
      "outputs": list(output_names(network, "tokens" in options)),
      "versions": _versions(form),
      "least_versions": FORMATS[form].least_versions(artifact),
      "sha256": notes.checksums(artifact),
      "largest_logit_difference": difference,
    }
    if "execution" in FORMATS[form].options:
      content["execution"] = execution
    content["names_sha256"] = notes.checksum_of_names(content)
    content["description_sha256"] = notes.checksum_of_description(content)
    text = json.dumps(content, indent=2) + "\n"
    what = f"what would be written as {notes.note_path(path)}"
    notes.loads(text, what, descriptions.UNREADABLE)
    note.write_text(text)
  return content


def check_libraries(form):
  """Raises InputError if a library that the format needs is missing."""
  FORMATS[form].check_libraries()


def check_options(form, options):
  """Raises InputError for an option, in {name: value}, that a format does not have."""
  FORMATS[form].check_options(options)


def check_path(form, path):
  """Raises InputError if an artifact of that format, and its note, could not be written.

  A directory that is not an earlier artifact, and a file in the note's place that is not a note,
  belong to somebody and are not replaced.
  """
  form = FORMATS[form]
  storage.check_name(path, form.name, bool(form.directory))
  form.check_path(path)
  if form.directory:
    storage.check_replaceable(path, form.name, _earlier(path))
  else:
    storage.check_file(path, form.name)
  note = notes.note_path(path)
  storage.check_file(note, f"the note of {form.name}")
  if note.exists() and not storage.path(path).exists():
    _checksums_noted(note)


@contextlib.contextmanager
def _replacing(path, form):
  """Yields paths to write an artifact and its note to, which then replace the old ones.

  Either both are replaced or neither.
  """
  note = notes.note_path(path)
  before = _content(note)
  earlier = _earlier(path) if form.directory else None
  try:
    with (
      storage.replacing(path, form.name, earlier) as partial,
      storage.replacing(note) as note_partial,
    ):
      yield partial, note_partial
  except BaseException:
    # The note is replaced first: if the artifact then cannot be, the old note is restored.
    if _content(note) != before:
      storage.remove(note) if before is None else storage.write(note, before)
    raise


def _earlier(path):
  """A function that recognises the artifact directory at a path by its present note.

  It returns the names of the files in the directory, and raises InputError unless they are exactly
  those that the note lists, unchanged.
  """
  note = notes.note_path(path)
  noted = _checksums_noted(note) if note.exists() else None

  def known(path):
    names = storage.files_in(path) if isinstance(noted, dict) else None
    if names is not None and names == sorted(noted):
      with storage.local(path) as copy:
        links = any((copy / name).is_symlink() for name in names)
        if not links and notes.checksums(copy) == noted:
          return names
    raise InputError(
      f"{path} is a directory, and {note.name} beside it does not describe its content as an "
      "artifact: give another name, or move it away"
    )

  return known


def _checksums_noted(note):
  """The checksums in a note, see `notes.checksums`; None if the note is of an older version.

  Raises:
    InputError: the file is not a note.
  """
  try:
    content = storage.read(note, descriptions.MOST_BYTES)
    return schema.loads(content, _NOTE, str(note), most_bytes=descriptions.MOST_BYTES).get("sha256")
  except (OSError, InputError) as error:
    raise InputError(
      f"{note}, where the artifact's note would be written, is another file: give another name, or "
      "move it away"
    ) from error


def _content(file):
  try:
    return storage.read(file)
  except OSError:
    return None


def _describe(network, budget):
  """The part of a note that describes the network."""
  arch, preprocessing = network.arch, network.preprocessing
  rectangle, sides = isinstance(arch.image_size, tuple), "shorter side"
  if preprocessing.crop_mode == "squash":
    sides = "both sides"
  elif rectangle:
    sides = "the least that covers it, of the image's own shape,"
  resize = f"{sides} to image_size ÷ crop_ratio, {preprocessing.interpolation}"
  return network.describe() | {
    "budget": budget,
    "thresholds": np.asarray(network.params["thresholds"]).tolist() if network.prunes else None,
    "gmacs_dense": network.dense_gmacs,
    "gmacs_target": complexity.target_gmacs(arch, budget),
    "image_size": arch.to_json()["image_size"],
    "patch_size": arch.patch_size,
    "num_classes": arch.classes,
    "preprocessing": preprocessing.to_json()
    | {
      "resize": f"{resize}; centre crop of image_size",
      "input": f"uint8 RGB, (b, {'height, width' if rectangle else 'image_size, image_size'}, 3); "
      "normalised inside",
    },
  }


def _versions(form):
  """{package: version} of the installed libraries that may have taken part in an artifact."""
  forms = [*(FORMATS[name] for name in FORMATS), FORMATS[form]]
  needed = [name for f in forms for pair in f.needs.items() for name in reversed(pair)]
  found = {}
  for package in dict.fromkeys((*_LIBRARIES, *needed)):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[package] = importlib.metadata.version(package)
  return found
