"""Writes scalars to TensorBoard's files, without TensorFlow."""

import pathlib
import sys
import tempfile
import types

from asvit_jax.core import storage
from asvit_jax.core.latest import Latest

_FILES = "events.out.tfevents.*"
_LARGEST = 1_000_000  # bytes of a file in a bucket, which is rewritten at every report


class TensorBoard:
  """Writes scalars; a resumed run first removes those after its step.

  Objects in a bucket cannot be appended to. There the growing file is kept on a local disk, a
  thread copies it, and a new file is begun when it gets large.

  Args:
    directory: directory of the files.
    step: the step that the run resumes from; 0 for a new run.

  Raises:
    OSError: the files cannot be written; in a bucket, the next call raises it.
  """

  def __init__(self, directory, step):
    _without_tensorflow()
    self._directory = self._local = storage.path(directory)
    self._copying = None
    _rewind(self._directory, step)
    if storage.in_bucket(self._directory):
      self._temporary = tempfile.TemporaryDirectory()
      self._local = pathlib.Path(self._temporary.name)
      self._copying = Latest(self._copy)
    self._begin()

  def add(self, step, scalars):
    """Writes {tag: number} of a step."""
    for tag, value in scalars.items():
      self._writer.add_scalar(tag, value, step)
    self._writer.flush()
    if self._copying is None:
      return
    self._copying.give(self._file)
    if self._file.stat().st_size > _LARGEST:
      self.flush()
      self._begin()

  def flush(self):
    """Waits until everything is written."""
    self._writer.flush()
    if self._copying is not None:
      self._copying.give(self._file)
      self._copying.wait()

  def _begin(self):
    from tensorboard import summary

    before = set(self._local.glob(_FILES))
    self._writer = summary.Writer(str(self._local))
    (self._file,) = set(self._local.glob(_FILES)) - before

  def _copy(self, file):
    storage.write(self._directory / file.name, file.read_bytes())


def _rewind(directory, step):
  """Removes the events after a step from all files of a directory."""
  from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
  from tensorboard.compat.proto.event_pb2 import Event
  from tensorboard.summary.writer.record_writer import RecordWriter

  files = sorted(directory.glob(_FILES)) if directory.is_dir() else []
  for file in files:
    with storage.local(file) as copy:
      events = list(RawEventFileLoader(str(copy)).Load())
    kept = [event for event in events if Event.FromString(event).step <= step]
    if len(kept) == len(events):
      continue
    with storage.replacing(file) as partial, partial.open("wb") as written:
      records = RecordWriter(written)
      for event in kept:
        records.write(event)


def _without_tensorflow():
  """Keeps TensorBoard from importing TensorFlow, by adding the module that it checks for.

  If TensorFlow is installed, importing it takes seconds and a gigabyte of memory.
  """
  sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
