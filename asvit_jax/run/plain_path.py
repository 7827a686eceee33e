"""Directories for libraries that take their paths for patterns."""

import os
import re
import tempfile
import weakref

from asvit_jax.core import storage
from asvit_jax.core.errors import InputError

# What patterns of files are made of, and what is left of names that are no text.
_SPECIAL = re.compile("[\\[\\]*?\\\\\ud800-\udfff]")


class PlainPath:
  """A path of a directory on a disk that no library misreads.

  Orbax looks for the files of a step by a pattern that begins with the step's path, so that in
  `runs/run[1]` it would find none. There it gets a path through a link, in the directory for
  temporary files, which is removed with this object.

  Args:
    directory: `pathlib.Path` of it, absolute; or one in a bucket, which stays as it is.

  Raises:
    InputError: there is no other path to it.
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
        f"it, which cannot be made ({error}); use another --workdir, or another TMPDIR"
      ) from error
    weakref.finalize(self, temporary.cleanup)
    self.path = type(directory)(link)

  def mend(self):
    """Makes the link again where something that clears temporary files has removed it."""
    if self.path is not self._directory and not os.path.lexists(self.path):
      os.makedirs(self.path.parent, exist_ok=True)
      os.symlink(self._directory, self.path)

  def named(self, text):
    """A text, with the directory's own path in place of the other one."""
    return text.replace(str(self.path), str(self._directory))
