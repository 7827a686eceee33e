"""The lock of a workdir in a bucket: an object that a run keeps rewriting while it is alive.

Each write names the generation of the object that it replaces, so of two concurrent writes only one
succeeds. A run that stops writing, because it was killed or cut off, loses the lease when it
expires; its own clock tells it so before any other run may take the lease.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid

from asvit_jax.core import schema
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.run import lock

RENEWED = 10.0  # seconds between two writes
EXPIRES = 60.0  # seconds after the last write; the owner gives up RENEWED seconds earlier
_LONGEST = 1 << 16  # bytes of the object
_MACHINE = schema.either(schema.NULL, schema.array(schema.text(), 3, 3))
_ADVICE = "no run wrote it: remove it if no run uses this workdir"
_SCHEMA = schema.table(
  lock.SCHEMA["properties"] | {"machine": _MACHINE, "released": schema.BOOLEAN},
  [*lock.SCHEMA["required"], "owner"],
)


class Lease:
  """A lease on an object of Google Cloud Storage, held within `with`.

  If the object exists, it waits to see whether another run still writes it, unless that run's
  process was on this machine and can be looked up. So a second run is refused within 20 seconds,
  and a run that resumes after a kill begins within a minute.

  Args:
    path: path of the object, an `epath.Path`.

  Raises:
    InputError: another run holds it.
  """

  def __init__(self, path):
    self._path = path
    self._object = _Object(path)
    self._content = lock.holder() | {"owner": uuid.uuid4().hex, "machine": _machine()}
    self._ended, self._lost = threading.Event(), None
    self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

  def __enter__(self):
    generation, before = self._object.read()
    if before is not None and not _is_over(before):
      generation = self._outlived(generation, before)
    self._written = _now()  # when the last successful write began
    self._generation = self._write(generation)
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._ended.set()
    self._thread.join()
    if self._lost is None:
      with contextlib.suppress(Exception):  # otherwise the lease expires by itself
        self._object.write(json.dumps(self._content | {"released": True}), self._generation)

  def check(self):
    """Raises InputError if another run has taken the lease meanwhile, or may take it."""
    if self._lost is None and _now() - self._written > EXPIRES - RENEWED:
      raise InputError(
        f"this run was cut off from {self._path.parent} for more than {EXPIRES - RENEWED:g} s, so "
        "another run may take over; it stops before both write there; run the same command to "
        "resume from its last checkpoint"
      )
    if self._lost is not None:
      raise InputError(
        f"this run was cut off from {self._path.parent}, and another run has taken over: let that "
        "one continue"
      )

  def _outlived(self, generation, before):
    """Waits until a lease has expired; returns the generation of its last write."""
    log(
      f"the lock of {self._path.parent} was not released by process {before.get('process')} on "
      f"{before.get('host')}: waiting up to {EXPIRES:.0f} s to see whether it is alive"
    )
    end = time.monotonic() + EXPIRES
    while time.monotonic() < end:
      time.sleep(min(1.0, RENEWED))
      now, content = self._object.read()
      if content is None or _is_over(content):
        return now
      if now != generation:
        raise lock.refused(self._path.parent, content)
    return generation

  def _write(self, generation):
    try:
      return self._object.write(json.dumps(self._content), generation)
    except _Changed as error:  # by a third run, at the same moment
      raise lock.refused(self._path.parent, self._object.read()[1] or {}) from error

  def _renew(self):
    while not self._ended.wait(RENEWED):
      try:
        begun = _now()
        try:
          self._generation = self._object.write(json.dumps(self._content), self._generation)
        except _Changed as error:
          generation, content = self._object.read()
          if content is None or content["owner"] != self._content["owner"]:
            self._lost = error
            return
          self._generation = generation  # the write succeeded, but its answer was lost
        else:
          self._written = begun
      except Exception as error:  # an unreachable network: every run sees the lease expire
        log(f"WARNING: the lock of {self._path.parent} cannot be renewed ({error})")


def _now():
  """Seconds of a clock that cannot be set, and that also counts while the machine sleeps."""
  return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _is_over(content):
  """Whether a lease is not held any more: released, or its process on this machine is dead."""
  if content.get("released"):
    return True
  if content.get("machine") is None or content["machine"] != _machine():
    return False
  try:
    os.kill(content["process"], 0)
  except ProcessLookupError:
    return True
  except OSError:
    return False
  return False


def _machine():
  """Identifies this boot of this machine and its process namespace; None if that is unknown."""
  try:
    with open("/proc/sys/kernel/random/boot_id") as file:
      return [socket.gethostname(), file.read().strip(), os.readlink("/proc/self/ns/pid")]
  except OSError:
    return None


class _Changed(Exception):
  """The object to replace is not the one that was read."""


class _Object:
  """An object in a bucket that is written only if it has not changed since it was read."""

  def __init__(self, path):
    from google.cloud import storage  # gcsfs brings it, and Orbax uses it

    self._where = str(path).removeprefix("gs://")
    bucket, _, self._name = self._where.partition("/")
    self._bucket = storage.Client().bucket(bucket)

  def read(self):
    """(generation, content); (0, None) if there is no object."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    blob = self._bucket.get_blob(self._name)
    if blob is None:
      return 0, None
    try:
      content = blob.download_as_bytes(if_generation_match=blob.generation, end=_LONGEST)
    except (NotFound, PreconditionFailed):  # it was written meanwhile
      return self.read()
    return blob.generation, schema.loads(content, _SCHEMA, f"the lock gs://{self._where}", _ADVICE)

  def write(self, text, generation):
    """Replaces that generation; returns the new one; raises `_Changed`."""
    from google.api_core.exceptions import PreconditionFailed

    blob = self._bucket.blob(self._name)
    try:
      blob.upload_from_string(text, if_generation_match=generation)
    except PreconditionFailed as error:
      raise _Changed from error
    return blob.generation
