"""The lock of a workdir, which refuses a second run; a killed run leaves no lock behind."""

import contextlib
import errno
import fcntl
import functools
import json
import os
import socket
import time
import uuid

from asvit_jax.core import hosts, schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import log

_NAME = "lock"
# Error numbers of file systems without locks.
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LONGEST = 4096  # bytes of the content of a lock
SCHEMA = schema.table(
  {
    "host": schema.text(),
    "process": schema.integer(),
    "since": schema.text(),
    "owner": schema.text(),
  },
  ["host", "process", "since"],
)


@contextlib.contextmanager
def held(workdir):
  """Holds the lock of a workdir, which is created if missing; only the first host holds it.

  On a disk it is a lock of the operating system, which ends with the process in any case. It is on
  the file `lock`, whose content names the holder, and, if the file system can, also on the workdir
  itself, which users do not remove to get rid of a lock. Buckets have no locks: there it is a
  lease, see `lease`.

  Args:
    workdir: directory of the run.

  Yields:
    A function to call before every write, which raises InputError if the lock was lost.

  Raises:
    InputError: another run holds the lock, or the lock cannot be written.
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
  with _writing(workdir):
    path.parent.mkdir(parents=True, exist_ok=True)
  with _locked(path, workdir, os.O_CREAT) as lock:
    content = json.dumps(holder() | {"owner": uuid.uuid4().hex}).encode()
    with _writing(workdir):
      os.pwrite(lock, content, 0)
      os.truncate(lock, len(content))
      status = os.fstat(lock)
    check_held = functools.partial(_check_held, path, (status.st_dev, status.st_ino), content)
    check_held()
    try:
      yield check_held
    finally:
      with contextlib.suppress(OSError):
        os.truncate(lock, 0)


def check(workdir):
  """Raises InputError if a run holds the lock now; creates nothing. Buckets are left to `held`."""
  path = storage.path(workdir) / _NAME
  if hosts.is_first() and not storage.in_bucket(path) and path.parent.is_dir():
    with _locked(path, workdir):
      pass


@contextlib.contextmanager
def _locked(path, workdir, flags=0):
  """Holds the locks of file and directory.

  Yields:
    A descriptor of the file; None if it is missing and `flags` do not create it.
  """
  with contextlib.ExitStack() as opened:
    with _writing(workdir):
      lock = _open(path, flags)
    if lock is not None:
      opened.callback(os.close, lock)
      _check_ours(path, lock)
    # The file first: it names the holder, and runs of older versions lock nothing else.
    try:
      locks = lock is not None and _lock(lock, workdir)
    except BlockingIOError as error:
      raise refused(workdir, _said(lock)) from error
    try:
      directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
      opened.callback(os.close, directory)
      fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
      locks = True
    except BlockingIOError as error:
      raise InputError(
        f"another run writes to {workdir} (a process has locked that directory, but not the file "
        f"{_NAME} in it): end it, or use another --workdir"
      ) from error
    except OSError:  # no permission to read it, or a file system without such locks, as NFS
      pass
    if flags and not locks:
      log(f"WARNING: {workdir} is on a file system without locks: start no second run there")
    yield lock


def _open(path, flags):
  try:
    return storage.opened(path, os.O_RDWR | flags)
  except FileNotFoundError:
    if flags:
      raise
    return None


def _lock(descriptor, workdir):
  """Locks an open file; returns False if the file system has no locks."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise
  except OSError as error:
    if error.errno not in _UNKNOWN:
      raise InputError(f"the workdir {workdir} cannot be locked: {error}") from error
    return False
  return True


@contextlib.contextmanager
def _writing(workdir):
  try:
    yield
  except OSError as error:
    raise InputError(f"cannot write to workdir {workdir}: {_NAME}: {error}") from error


def _check_ours(path, lock):
  """Raises InputError for a file that has the name of the lock but is not one."""
  if os.fstat(lock).st_size and not os.pread(lock, _LONGEST, 0).startswith(b'{"host": '):
    raise InputError(
      f"{path} is not the lock of a run, and a run would write over it: move it away, or use "
      "another --workdir"
    )


def _check_held(path, ours, content):
  """Raises InputError unless the file at a path is still the locked one.

  Args:
    path: path of the lock.
    ours: (device, inode) of the locked file.
    content: its content, which is unique to this run.
  """
  try:
    status = os.lstat(path)
  except (FileNotFoundError, NotADirectoryError):
    status = None
  except OSError:  # an unreachable network; writing will report it
    return
  if status is not None:
    if (status.st_dev, status.st_ino) == ours:
      return
    # Some file systems renumber their files.
    with contextlib.suppress(OSError):
      if storage.read(path, most=_LONGEST) == content:
        return
  raise InputError(
    f"{path}, which keeps other runs out of this one's workdir, was removed or replaced: the run "
    "stops before two write there; run the same command to resume from its last checkpoint"
  )


def holder():
  """The holder that a lock names: host, process and time, for JSON."""
  since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
  return {"host": socket.gethostname(), "process": os.getpid(), "since": since}


def refused(workdir, holder):
  """The InputError that refuses a second run.

  Args:
    workdir: directory of the run.
    holder: see `holder`.
  """
  host, process, since = (
    on_a_line(holder.get(key, "?"))[:100] for key in ("host", "process", "since")
  )
  return InputError(
    f"another run writes to {workdir}: process {process} on {host}, since {since}; end it, or use "
    "another --workdir"
  )


def _said(lock):
  """The holder that a lock names; {} if it is not written yet, or damaged."""
  try:
    return schema.loads(os.pread(lock, _LONGEST, 0), SCHEMA, _NAME)
  except InputError:
    return {}
