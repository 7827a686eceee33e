"""Which errors the user can fix, and one sentence for each.

Besides `InputError`, these are refusals of the machine: a file, a disk, memory, a device. Every
other exception is a bug, in this package or in a user's own part, and keeps its traceback, which is
needed to fix it.
"""

import errno

from asvit_jax.core import platforms
from asvit_jax.core.errors import InputError

_ADVICE = {
  errno.EACCES: "check its permissions",
  errno.EPERM: "check its permissions",
  errno.EROFS: "it is on a disk that can only be read: give another place",
  errno.ENOSPC: "make room on the disk, or give another place",
  errno.EDQUOT: "make room in the quota, or give another place",
  errno.EMFILE: "raise the limit of open files (ulimit -n), or lower data.workers",
  errno.ENFILE: "raise the machine's limit of open files",
  errno.ENAMETOOLONG: "give a shorter name",
  errno.ELOOP: "its links lead in a circle: give the file itself",
  errno.ENOENT: "check the path",
  errno.ENOTDIR: "check the path",
  errno.EISDIR: "give a file, not a directory",
  errno.ENOMEM: "free memory, or lower data.workers",
  errno.EAGAIN: "raise the limit of processes (ulimit -u), or lower data.workers",
}


def advice(number, other):
  """Advice for an error number of the operating system; `other` for numbers without one."""
  return _ADVICE.get(number, other)


def describe(error):
  """One sentence for an error: what happened, and what to do.

  Args:
    error: any exception.

  Returns:
    The sentence; None for errors that are bugs.
  """
  if isinstance(error, InputError):
    return str(error)
  said = platforms.describe(error)
  if said is not None:
    return said
  if isinstance(error, MemoryError):
    return (
      f"this machine does not have enough memory{f' ({error})' if str(error) else ''}: lower "
      "batch_size, eval.batch_size, --batch or data.workers, or take a smaller network"
    )
  if not isinstance(error, OSError):
    return None
  reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
  what_to_do = advice(error.errno, "see that the disk and the network can be reached")
  if error.filename is None:
    return f"the system refused a file, a connection or a process ({reason}): {what_to_do}"
  return f"{error.filename} cannot be read or written ({reason}): {what_to_do}"
