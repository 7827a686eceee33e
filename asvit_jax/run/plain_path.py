"""Paths without special characters, for libraries that treat paths as glob patterns."""

import os
import re
import tempfile
import weakref

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

# Characters of glob patterns, and surrogates, which stand for bytes that are not UTF-8.
_SPECIAL = re.compile("[\\[\\]*?\\\\\ud800-\udfff]")


class PlainPath:
  """A path to a directory without characters of glob patterns.

  Orbax finds the files of a step by a glob pattern that begins with the step's path, so in
  `runs/run[1]` it would find none. For such a directory, `path` leads through a symbolic link in
  the temporary directory, which is removed with this object.

  Args:
    directory: absolute `pathlib.Path` of the directory; a path in a bucket is used as it is.

  Raises:
    InputError: the link cannot be created.
  """

  def __init__(self, directory):
    self._directory = self.path = directory
    if storage.in_bucket(directory) or not _SPECIAL.search(str(directory)):
      return
    try:
      temporary = tempfile.TemporaryDirectory(prefix="asvit_jax_")
      link = os.path.join(temporary.name, "checkpoints")
      if _SPECIAL.search(link):
        raise OSError(f"{link} is the only other path")
      os.symlink(directory, link)
    except OSError as error:
      raise InputError(
        f"checkpoints cannot be kept in {directory}: a path with one of [ ] * ? \\ needs a link to "
        f"it, which cannot be created ({error}); use another --workdir, or another TMPDIR"
      ) from error
    weakref.finalize(self, temporary.cleanup)
    self.path = type(directory)(link)

  def mend(self):
    """Creates the link again if a clean-up of temporary files has removed it."""
    if self.path is not self._directory and not os.path.lexists(self.path):
      os.makedirs(self.path.parent, exist_ok=True)
      os.symlink(self._directory, self.path)

  def named(self, text):
    """Replaces the link's path in a text by the directory's own path."""
    return text.replace(str(self.path), str(self._directory))
