"""The lock of a workdir in a bucket: an object that is written again and again while a run lives.

Each writing names the object that it replaces, so of two that write only one succeeds. Who stops
writing, killed or cut off, has lost the lease when it runs out, and knows that by its own clock
before anybody else may take it.
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

RENEWED = 10.0  # seconds between two writings
EXPIRES = 60.0  # seconds after the last one; its owner takes it for lost RENEWED seconds before
_LONGEST = 1 << 16  # bytes of the object
_MACHINE = schema.either(schema.NULL, schema.array(schema.text(), 3, 3))
_ADVICE = "no run wrote it: remove it where none runs there"
_SCHEMA = schema.table(
  lock.SCHEMA["properties"] | {"machine": _MACHINE, "released": schema.BOOLEAN},
  [*lock.SCHEMA["required"], "owner"],
)


class Lease:
  """A lease on an object of Google Cloud Storage, held within `with`.

  Where one is there already, it waits to see whether somebody still writes it, unless that is a
  process of this machine, of which it knows. So a second run is refused after 20 seconds at most,
  and one that goes on after a kill begins a minute later at most.

  Args:
    path: of the object, an `epath.Path`.

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
    self._written = _now()  # when the last writing that succeeded began
    self._generation = self._write(generation)
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._ended.set()
    self._thread.join()
    if self._lost is None:
      with contextlib.suppress(Exception):  # it runs out by itself
        self._object.write(json.dumps(self._content | {"released": True}), self._generation)

  def check(self):
    """Raises InputError where another run has taken the lease meanwhile, or may have."""
    if self._lost is None and _now() - self._written > EXPIRES - RENEWED:
      raise InputError(
        f"this run was cut off from {self._path.parent} for more than {EXPIRES - RENEWED:g} s, and "
        "another one may take over: it stops before two write there; run the same command to go on "
        "from its last checkpoint"
      )
    if self._lost is not None:
      raise InputError(
        f"this run was cut off from {self._path.parent}, and another one has taken over: let that "
        "one go on"
      )

  def _outlived(self, generation, before):
    """Waits until a lease has run out; returns the generation of its last writing."""
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
          self._generation = generation  # written once, but the answer did not arrive
        else:
          self._written = begun
      except Exception as error:  # a network that is away: all see the lease run out
        log(f"WARNING: the lock of {self._path.parent} cannot be renewed ({error})")


def _now():
  """Seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
  return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _is_over(content):
  """Whether nobody holds what was read: it was released, or its process here is dead."""
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
  """What tells this boot of this machine and its numbers of processes from all others; or None."""
  try:
    with open("/proc/sys/kernel/random/boot_id") as file:
      return [socket.gethostname(), file.read().strip(), os.readlink("/proc/self/ns/pid")]
  except OSError:
    return None


class _Changed(Exception):
  """What was to be replaced is not there any more."""


class _Object:
  """Reads an object, and writes it if it is still the one that was read."""

  def __init__(self, path):
    from google.cloud import storage  # gcsfs brings it, and Orbax uses it

    self._where = str(path).removeprefix("gs://")
    bucket, _, self._name = self._where.partition("/")
    self._bucket = storage.Client().bucket(bucket)

  def read(self):
    """(generation, content); (0, None) where there is none."""
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
    """The generation of what was written; raises `_Changed`."""
    from google.api_core.exceptions import PreconditionFailed

    blob = self._bucket.blob(self._name)
    try:
      blob.upload_from_string(text, if_generation_match=generation)
    except PreconditionFailed as error:
      raise _Changed from error
    return blob.generation
