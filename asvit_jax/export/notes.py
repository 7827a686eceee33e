"""The note of an artifact, `NAME.json`: its form, and whether it belongs to the artifact."""

import hashlib
import json

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import log
from asvit_jax.vit import description as descriptions

_COUNT = schema.integer(0, 1 << 20)
_CHECKSUM = schema.text(64)
CHECKSUMS = schema.either(_CHECKSUM, schema.table(others=_CHECKSUM))  # see `checksums`
# `descriptions.FIELDS` come from `Network.describe`, the others from `writing.export`.
_NOTE = schema.table(
  descriptions.FIELDS
  | {
    "budget": schema.either(schema.NULL, schema.number(0, 1e3)),
    "image_size": schema.either(_COUNT, schema.array(_COUNT, 2, 2)),
    "patch_size": _COUNT,
    "num_classes": _COUNT,
    "prune_before": schema.array(_COUNT, most=1 << 10),
    "outputs": schema.array(schema.text(100), most=16),
    "execution": schema.text(100),
    "versions": schema.table(others=schema.text(100)),
    "least_versions": schema.table(others=schema.text(100)),
    "sha256": CHECKSUMS,
    "names_sha256": _CHECKSUM,
    "description_sha256": _CHECKSUM,
  },
  required=("format",),
)
# The preprocessing that is part of the programs: a wrong value in the note would go unnoticed.
_INSIDE = ("mean", "std")
# Fields that describe the network and the preparation of its images.
_DESCRIBES = ("variant", "architecture", "preprocessing", "classes", "budgets", "budget")
_DESCRIBES += ("image_size", "patch_size", "num_classes", "thresholds", "outputs", "speedups")
_DESCRIBES += ("counts", "execution")


def note_path(artifact):
  """Path of an artifact's note; raises InputError for a path without a file name, as `/`."""
  artifact = storage.path(artifact)
  if not artifact.name:
    raise InputError(f"artifact {str(artifact)!r}: it does not end in the name of a file: give one")
  return artifact.with_name(artifact.name + ".json")


def read_note(artifact):
  """Reads the note of an artifact, a dictionary.

  Raises:
    InputError: there is no artifact, or no valid note beside it.
  """
  path, place = storage.path(artifact), note_path(artifact)
  if not path.exists():
    raise InputError(f"artifact {path}: no such file; expected what export.py wrote")
  try:
    note = loads(storage.read(place, descriptions.MOST_BYTES), "it")
  except (OSError, InputError) as error:
    raise InputError(
      f"artifact {path}: its description {place.name} is missing or damaged "
      f"({error.strerror if isinstance(error, OSError) else error}); keep the two together"
    ) from error
  return note


def loads(content, what, advice="export it again"):
  """Parses a note from JSON; raises InputError if it does not have the form of a note.

  Args:
    content: bytes or text.
    what: a description for the error.
    advice: what to do, for the error.
  """
  return descriptions.loads(content, what, advice, _NOTE)


def checksums(path):
  """SHA-256 of a file, or {relative path: SHA-256} of the files of a directory."""
  if path.is_file():
    return _of_file(path)
  files = sorted(p for p in path.rglob("*") if p.is_file())
  return {p.relative_to(path).as_posix(): _of_file(p) for p in files}


def checksum_of_names(note):
  """SHA-256 of the parts of a note that no output reveals: names of classes, mean and std."""
  preprocessing = note.get("preprocessing", {})
  said = [note.get("classes"), *(preprocessing.get(key) for key in _INSIDE)]
  return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def checksum_of_description(note):
  """SHA-256 of everything that a note says about its network and the images for it."""
  said = {key: note[key] for key in _DESCRIBES if key in note}
  return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_artifact(note, artifact):
  """Raises InputError if a note does not belong to the artifact beside it, by their checksums.

  Args:
    note: note of `read_note`.
    artifact: path of the artifact.
  """
  if "sha256" not in note:  # written by a version without checksums
    log(
      f"WARNING: {note_path(artifact).name} has no checksum, so it may not belong to {artifact}: "
      "export it again"
    )
    return
  with storage.local(artifact) as file:
    found = checksums(file)
  if found == note["sha256"]:
    return
  kinds = {isinstance(value, dict) for value in (found, note["sha256"])}
  differ = sorted(set(found.items()) ^ set(note["sha256"].items())) if kinds == {True} else ()
  which = f" (first in {on_a_line(differ[0][0])[:100]})" if differ else ""
  raise InputError(
    f"artifact {artifact} is not the one that {note_path(artifact).name} describes: its SHA-256 "
    f"differs{which}; restore the two that were exported together, or export it again"
  )


def check_description(note, artifact):
  """Raises InputError if a note was changed after it was written, by its own checksums.

  Notes of older versions have a checksum only of names, mean and std, or none; the rest is accepted
  with a warning.

  Args:
    note: note of `read_note`.
    artifact: path of the artifact, for the error.
  """
  if note.get("names_sha256", checksum_of_names(note)) != checksum_of_names(note):
    raise InputError(
      f"artifact {artifact}: the classes, mean or std in {note_path(artifact).name} are not those "
      "with which it was exported: restore the note, or export it again"
    )
  if "description_sha256" not in note:
    if "sha256" in note:  # else `check_artifact` has warned already
      log(
        f"WARNING: {note_path(artifact).name} was written by an earlier version and has no "
        "checksum of its description of the network: export it again"
      )
  elif note["description_sha256"] != checksum_of_description(note):
    raise InputError(
      f"artifact {artifact}: the network or the preprocessing in {note_path(artifact).name} is not "
      "that with which it was exported: restore the note, or export it again"
    )


def _of_file(path):
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
