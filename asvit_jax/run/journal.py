"""A file of lines that grows, on a disk or in a bucket."""

from asvit_jax.core import storage
from asvit_jax.core.latest import Latest


class Journal:
  """Appends lines to a file that begins with some.

  An object in a bucket cannot be appended to: there the whole of it is written again, all or
  nothing, on a thread of its own, so that no step waits for it. What is given meanwhile goes with
  the next writing.

  Args:
    path: of the file, which is replaced.
    lines: texts that it begins with.

  Raises:
    OSError: it cannot be written; of one in a bucket, the next call raises it.
  """

  def __init__(self, path, lines):
    self._path, self._text = storage.path(path), "".join(line + "\n" for line in lines)
    storage.write(self._path, self._text)
    self._writing = None
    if storage.in_bucket(self._path):
      self._writing = Latest(lambda text: storage.write(self._path, text))

  def add(self, line):
    """One line, without its end."""
    if self._writing is None:
      storage.append(self._path, line + "\n")
      return
    self._text += line + "\n"
    self._writing.give(self._text)

  def flush(self):
    """Returns once everything is where it belongs."""
    if self._writing is not None:
      self._writing.wait()
