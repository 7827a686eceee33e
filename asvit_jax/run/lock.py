"""One run a workdir: the second is refused by a lock that a killed run does not leave behind."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time

from asvit_jax.core import hosts, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log

_NAME = "lock"
# What file systems say that know no locks.
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def held(workdir):
  """Holds the lock of a workdir, which is made where it is not there; of several hosts, the first.

  On a disk it is a lock of the operating system, which ends with the process, however that ends. In
  a bucket, where there is none, it is a lease: see `lease`.

  Args:
    workdir: of the run.

  Yields:
    A function that raises InputError where the lock was lost meanwhile.

  Raises:
    InputError: another run holds it, or it cannot be written.
  """
  if not hosts.is_first():
    yield lambda: None
    return
  path = storage.path(workdir) / _NAME
  if storage.in_bucket(path):
    from asvit_jax.run.lease import Lease

    with Lease(path) as lease:
      yield lease.check
    return
  with _locked(path, workdir):
    yield lambda: None


def check(workdir):
  """Raises InputError where a run holds the lock now; makes nothing. In a bucket `held` says so."""
  path = storage.path(workdir) / _NAME
  if hosts.is_first() and not storage.in_bucket(path) and path.exists():
    with _locked(path, workdir):
      pass


@contextlib.contextmanager
def _locked(path, workdir):
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
  except OSError as error:
    raise InputError(f"cannot write to workdir {workdir}: {error}") from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise refused(workdir, _holder(file.read())) from error
    except OSError as error:
      if error.errno not in _UNKNOWN:
        raise InputError(f"the workdir {workdir} cannot be locked: {error}") from error
      log(f"WARNING: {workdir} is on a file system without locks: start no second run there")
    file.truncate(0)
    file.write(json.dumps(holder()))
    file.flush()
    try:
      yield
    finally:
      file.truncate(0)


def holder():
  """Who holds a lock, for JSON and for people."""
  since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
  return {"host": socket.gethostname(), "process": os.getpid(), "since": since}


def refused(workdir, holder):
  """The error of a second run."""
  return InputError(
    f"another run writes to {workdir}: process {holder.get('process', '?')} on "
    f"{holder.get('host', '?')}, since {holder.get('since', '?')}; end it, or use another --workdir"
  )


def _holder(text):
  try:
    return json.loads(text)
  except ValueError:  # it has the lock, but has not written yet
    return {}
