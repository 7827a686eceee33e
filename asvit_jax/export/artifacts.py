"""Loads exported artifacts and runs each with the library of its format."""

import dataclasses
import importlib.metadata
import re
from typing import Any

import numpy as np

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import typed
from asvit_jax.core.printable import on_a_line
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.data.sources.classes import check_number
from asvit_jax.export import notes
from asvit_jax.export.formats import FORMATS
from asvit_jax.export.formats.base import Format
from asvit_jax.export.notes import note_path, read_note
from asvit_jax.export.programs import OUTPUTS
from asvit_jax.export.serving import Programs
from asvit_jax.vit.images import checked

__all__ = ["Artifact", "architecture", "load_artifact", "note_path", "read_note"]


@dataclasses.dataclass(frozen=True)
class Artifact:
  """A loaded artifact: call it with images.

  Attributes:
    programs: the programs it runs.
    note: the description of the artifact, the content of `NAME.json`.
    arch: the `Architecture` of the network, with the stages at which it prunes or could.
    preprocessing: the `Preprocessing` of its images.
    classes: names by label, or None if they are unknown.
  """

  programs: Programs
  note: dict[str, Any]
  arch: vit.Architecture
  preprocessing: Preprocessing
  classes: tuple[str, ...] | None

  @property
  def packed_sizes(self):
    """Batch sizes of the packed programs, ascending; empty if there are none."""
    return self.programs.packed_sizes

  @property
  def execution(self):
    """The execution of the program for any number of images; None in notes of older versions."""
    return self.note.get("execution")

  def __call__(self, images, tokens=False, sources=False):
    """Runs the artifact at the batch sizes of its programs; pads or splits the images to fit.

    Args:
      images: (b, s, s, 3) uint8, any number of images; or a list of images, see `vit.images`.
      tokens: whether to return tokens; needs an artifact that was exported with `tokens=True`.
      sources: whether to return where every patch went, for `unmerge`; needs the same.

    Returns:
      (b, classes) logits and (b, stages) kept patches, NumPy arrays of float32; with `tokens` also
      (b, 1 + n, d) float32 tokens and their (b, 1 + n) int32 positions, as in `Outputs`; with
      `sources` also (b, n) int32 sources.

    Raises:
      InputError: the images have another shape or type, or there are none, or the artifact returns
        no tokens or no sources.
    """
    images = checked(images, self.arch, self.preprocessing, pixels_only=True)
    if tokens or sources:
      self.check_tokens()
    if sources and not self.has_sources:
      raise InputError(
        "this artifact returns no sources: it was written by an earlier version, or its network's "
        "reduction does not say where tokens go; export it again with --tokens"
      )
    found = dict(zip(self.note.get("outputs", OUTPUTS), self.programs(images), strict=False))
    self.check_outputs(found)
    more = [*(("tokens", "positions") if tokens else ()), *(("sources",) if sources else ())]
    return tuple(found[name] for name in (*OUTPUTS, *more))

  @property
  def has_sources(self):
    """Whether it can return sources, see `__call__`."""
    return "sources" in self.note.get("outputs", OUTPUTS)

  def check_outputs(self, found):
    """Raises InputError if the programs' outputs do not match the network of the note.

    Args:
      found: {name of an output: array, or its shape}, (b, classes) logits and (b, stages) kept.
    """
    expected = {"logits": self.arch.classes}
    if "prune_before" in self.note:  # missing in early notes
      expected["kept"] = len(self.note["prune_before"])
    for name, count in expected.items():
      if name not in found:
        continue
      shape = tuple(getattr(found[name], "shape", found[name]))
      if len(shape) != 2 or (isinstance(shape[-1], int) and shape[-1] != count):
        raise InputError(
          f"the artifact's programs return {name} of shape {shape}, and its note describes "
          f"(b, {count}): the two do not belong together; export it again"
        )
      if hasattr(found[name], "dtype") and not np.isfinite(found[name]).all():
        raise InputError(
          f"the artifact's programs return {name} that are not finite: its weights are damaged; "
          "export it again"
        )

  def check_tokens(self):
    """Raises InputError unless the artifact returns tokens."""
    if "tokens" not in self.note.get("outputs", OUTPUTS):
      raise InputError(
        "this artifact returns no tokens: export it with --tokens (`Network.export(tokens=True)`)"
      )

  def warm_up(self, batch_sizes=None):
    """Compiles and loads everything that calls need, so that no call has to.

    Args:
      batch_sizes: batch sizes of all later calls: some of its programs' sizes; or, if one program
        takes any number but compiles for each, any sizes, by default 1 and 32.

    Raises:
      InputError: there is no program for a size.
    """
    self.programs.warm_up(np.zeros(self.arch.image_shape, np.uint8), batch_sizes)


def load_artifact(path, parts=()):
  """Loads an artifact.

  Args:
    path: path of the artifact, with its `NAME.json` beside it.
    parts: names of your own parts, `package.module:object`, that the artifact may use: its format,
      and parts of its network. Opening a file imports nothing else.

  Returns:
    `Artifact`.

  Raises:
    InputError: the artifact is missing or damaged; a library is missing or too old; its format
      holds no programs; the note belongs to another artifact; or it names code outside this package
      that is not in `parts`.
  """
  parts, note = typed(parts), read_note(path)
  _check_versions(note, path)
  form = _format(note["format"], path, parts)
  # Checked before anything runs.
  arch = architecture(note, parts) if "architecture" in note else None
  notes.check_artifact(note, path)
  programs = form.load(path)
  arch = arch or architecture(note, parts)
  try:
    classes = None if note["classes"] is None else tuple(note["classes"])
    check_number(classes, arch.classes, f"artifact {path}", "export it again with")
    preprocessing = Preprocessing.from_json(note["preprocessing"])
  except KeyError as error:
    raise _lacks(error) from error
  notes.check_description(note, path)
  artifact = Artifact(programs, note, arch, preprocessing, classes)
  for program in programs.by_size.values():
    artifact.check_outputs(getattr(program, "shapes", {}))
  return artifact


def architecture(note, parts=()):
  """The `Architecture` of an artifact, from its note.

  Args:
    note: the note, see `read_note`.
    parts: as for `load_artifact`.

  Raises:
    InputError: the note is of an unknown version, or names code that is not in `parts`.
  """
  if "architecture" in note:
    return vit.Architecture.from_json(note["architecture"], "the artifact's description", parts)
  try:  # the note is older than architectures
    return dataclasses.replace(
      vit.VARIANTS[note["variant"]],
      image_size=note["image_size"],
      patch_size=note["patch_size"],
      classes=note["num_classes"],
    )
  except KeyError as error:
    raise _lacks(error) from error


def _format(name, path, parts):
  """The `Format` of that name; raises InputError for untrusted code or anything else."""
  if isinstance(name, str) and ":" in name and name not in parts:
    raise InputError(
      f"artifact {path}: {on_a_line(name)[:100]!r} is not an export format of this package, but "
      "code outside it; opening a file never runs such code: if you trust it, type the name "
      "yourself, --parts=NAME or parts=[NAME]"
    )
  try:
    form = FORMATS[name]
  except InputError as error:
    raise InputError(f"artifact {path}: {error}") from error
  if not isinstance(form, Format):
    raise InputError(f"artifact {path}: {name!r} is not an export format: export it again")
  return form


def _check_versions(note, path):
  """Raises InputError if an installed library is older than an artifact needs."""
  for package, least in note.get("least_versions", {}).items():
    try:
      installed = importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # the latter of odd names
      continue  # if it is needed, the format reports it
    if _release(installed) < _release(least):
      raise InputError(
        f"artifact {path} needs {package} {least} or newer, and {installed} is installed: "
        f"`pip install --upgrade {package}`"
      )


def _release(version):
  numbers = [int(number) for number in re.findall(r"\d+", version)[:3]]
  return numbers + [0] * (3 - len(numbers))


def _lacks(error):
  return InputError(f"the artifact's description lacks or does not know {error}: export it again")
