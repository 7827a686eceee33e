"""A text file that grows line by line, on a disk or in a bucket."""

from asvit_jax.core import storage
from asvit_jax.core.latest import Latest


class Journal:
  """Replaces a file by some lines, and then appends to it.

  Objects in a bucket cannot be appended to. There a thread rewrites the whole object atomically, so
  that no training step waits; lines that are added meanwhile are part of the next write.

  Args:
    path: path of the file.
    lines: its first lines.

  Raises:
    OSError: the file cannot be written; in a bucket, the next call raises it.
  """

  def __init__(self, path, lines):
    self._path, self._text = storage.path(path), "".join(line + "\n" for line in lines)
    storage.write(self._path, self._text)
    self._writing = None
    if storage.in_bucket(self._path):
      self._writing = Latest(lambda text: storage.write(self._path, text))

  def add(self, line):
    """Appends one line, given without its newline."""
    if self._writing is None:
      storage.append(self._path, line + "\n")
      return
    self._text += line + "\n"
    self._writing.give(self._text)

  def flush(self):
    """Waits until all lines are written."""
    if self._writing is not None:
      self._writing.wait()
