"""Base classes of the export formats."""

import importlib
from typing import ClassVar

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.export import verification
from asvit_jax.export.serving import Programs


class Format:
  """Base of the formats, see `formats`; a subclass implements write, load and verify."""

  name: str
  needs: ClassVar[dict[str, str]] = {}
  directory: str | None = None
  options: ClassVar[tuple[str, ...]] = ()
  executions: ClassVar[tuple[str, ...]] = ("masked", "fixed")

  def write(self, network, path, batch_sizes, **options):
    """Writes a `Network` to a path, see `formats`."""
    raise NotImplementedError

  def load(self, path):
    """Loads the programs of an artifact, see `formats`."""
    raise NotImplementedError

  def verify(self, network, path, execution=None):
    """Compares an artifact with the network in memory, see `formats`."""
    raise NotImplementedError

  def least_versions(self, path):
    """The oldest versions known to load an artifact; {} if unknown, see `formats`."""
    del path
    return {}

  def check_options(self, options):
    """Raises InputError if the format lacks one of the options, a dictionary, or the execution."""
    for name in options:
      if name not in self.options:
        raise InputError(
          f"the format {self.name} has no option --{name}: "
          f"{f'it takes --{self.options[0]}' if self.options else 'leave it out'}"
        )
    execution = options.get("execution", self.executions[0])
    if execution not in self.executions:
      raise InputError(
        f"execution {shown(execution)} of an artifact: expected {' or '.join(self.executions)} for "
        f"the format {self.name}; packed is for onnx (StableHLO and SavedModel have packed "
        "programs for each --batch beside the masked one)"
      )

  def require(self, library):
    """Imports a library of `needs`; raises InputError with the install command if it is missing."""
    try:
      return importlib.import_module(library)
    except ImportError as error:
      raise InputError(
        f"{library} is needed for this format and is not installed: "
        f"`pip install '.[export]'` in the clone (or {self.needs[library]} alone)"
      ) from error

  def check_libraries(self):
    """Raises InputError if a library of `needs` is missing."""
    for library in self.needs:
      self.require(library)

  def check_path(self, path):
    """Raises InputError if a directory is in the place of a file artifact, or vice versa."""
    path = storage.path(path)
    if not self.directory and _is(path.is_dir):
      raise InputError(f"--out {path} is a directory: give the name of a file")
    if self.directory and _is(path.is_file):
      raise InputError(f"--out {path} is a file: {self.directory} is a directory")


def _is(question):
  """The result of a test of a path; False if the path cannot be accessed (writing reports it)."""
  try:
    return question()
  except OSError:
    return False


class ProgramFormat(Format):
  """A format that holds programs; a subclass implements `write` and `read`.

  The programs of an artifact take (b, s, s, 3) uint8 images and return `logits` (b, classes) and
  `kept` (b, stages) float32, the number of patches that each stage keeps; if written with `tokens`,
  also `tokens` (b, 1 + n, d) float32, their `positions` (b, 1 + n) int32 and, where known,
  `sources` (b, n) int32, see `Outputs`.

  Attributes:
    compiles: whether a program for any number of images compiles again for each number.
  """

  compiles: ClassVar[bool] = True

  def read(self, path):
    """Reads the programs of an artifact; a damaged one may raise any error.

    Args:
      path: a `pathlib.Path` on a disk; for an artifact in a bucket, a temporary copy.

    Returns:
      {batch size, or None for any: function of images that returns (logits, kept), followed by
      tokens, positions and sources if the artifact has them}. A function may have an attribute
      `shapes`, {name of an output: its shape}, if the format stores shapes; they are compared with
      the note.
    """
    raise NotImplementedError

  def load(self, path):
    """Loads the programs of an artifact, see `formats`."""
    try:
      with storage.local(path) as file:
        return Programs(self.read(file), self.compiles)
    except InputError:
      raise
    except Exception as error:  # each library raises its own types; the cause is always the file
      raise InputError(
        f"artifact {path} cannot be loaded as {self.name} "
        f"({type(error).__name__}: {str(error)[:200]}); it may be truncated: export it again"
      ) from error

  def verify(self, network, path, execution=None):
    """Compares an artifact with the network in memory, see `formats`."""
    return verification.largest_difference(network, self.load(path), self.name, execution)
