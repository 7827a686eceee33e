"""Worker processes that prepare batches: how they start, end with their parent, and fail.

The workers are Grain's. Grain by itself starts each as a new Python, which imports JAX and the
other libraries again: on 32 cores, 32 times the import and 32 times its memory. Here a server
process imports them once, and the workers are forked from it.
"""

import atexit
import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import weakref
from multiprocessing import forkserver, resource_tracker

import grain
from absl import flags

from asvit_jax.core import stopping
from asvit_jax.core.errors import InputError

_SHARED_MEMORY = "/dev/shm"
_UNGUARDED = 90  # the exit code of a worker that started to run its parent's script
_GUARD = 'if __name__ == "__main__":'


def check_script():
  """Ends a worker that is running its parent's script, and would repeat all of the parent's work.

  A worker imports the script that started it, so scripts must keep what runs once under `if
  __name__ == "__main__":`. Functions that do long work with workers call this check first.
  """
  if getattr(multiprocessing.current_process(), "_inheriting", False):  # multiprocessing's own test
    os._exit(_UNGUARDED)


def prefetched(dataset, count):
  """A Grain `IterDataset` whose elements are prepared by `count` processes.

  Raises:
    InputError: the workers cannot import the script of this process.
  """
  check_script()
  main = sys.modules["__main__"]
  file = getattr(main, "__file__", None)
  if file is not None and getattr(main, "__spec__", None) is None and not os.path.isfile(file):
    raise InputError(
      f"data.workers={count} start processes that import the script, and {file} cannot be "
      f"imported: save it in a file, with its main code under `{_GUARD}`, or set data.workers=0"
    )
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain passes absl's flags to its workers, also if there are none
  _fork_from_server()
  return dataset.mp_prefetch(
    grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=1),
    worker_init_fn=_follow_parent,
  )


def close_at_exit(stream):
  """Closes a generator that reads from workers at exit; otherwise these complain about leaks."""
  alive = weakref.ref(stream)

  def close():
    # ValueError: another thread still waits for data in it; that cannot be interrupted.
    with contextlib.suppress(ValueError):
      if (found := alive()) is not None:
        found.close()

  atexit.register(close)


def following(iterator):
  """The next element from the workers, or None at the end.

  Args:
    iterator: iterator of a `prefetched` dataset.

  Raises:
    InputError: a worker died; the message gives the likely cause and what to do.
  """
  try:
    return next(iterator, None)
  except RuntimeError as error:  # raised by Grain, with the exit code
    raise InputError(f"a data worker failed ({error}){_advice(str(error))}") from error


def _advice(message):
  """Advice for a worker's exit code."""
  code = re.search(r"exit code (-?\d+)", message)
  if code is not None and int(code[1]) == _UNGUARDED:
    return (
      ": workers import the script that starts them, and this script would run again in each; put "
      f"its main code under `{_GUARD}`, or set data.workers=0"
    )
  if code is None or int(code[1]) >= 0:
    return ": its output above says why; rerun the command to resume"
  number = -int(code[1])
  if number == signal.SIGBUS:
    return (
      f": a bus error means that {_SHARED_MEMORY}, which batches pass through, is full{_room()}: "
      "give it more (Docker: --shm-size=16g, or --ipc=host; Kubernetes: an emptyDir of medium "
      "Memory there), or lower data.workers, and rerun the command to resume"
    )
  if number == signal.SIGKILL:
    return (
      ": it was killed, most likely for too little memory (dmesg names it): lower data.workers or "
      "give the machine or the container more memory, and rerun the command to resume"
    )
  name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
  return (
    f": it was ended by {name}, from outside or by a library that decodes images; rerun the "
    "command to resume, with data.workers=0 if it happens again"
  )


def _room():
  with contextlib.suppress(OSError):
    return f" (it holds {shutil.disk_usage(_SHARED_MEMORY).total / 2**20:.0f} MiB in all)"
  return ""


def _fork_from_server():
  """Makes Grain fork its workers from a server that has already imported Grain and this package."""
  from grain._src.python.dataset.transformations import process_prefetch

  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["grain", "asvit_jax.data.loader"])
  # Grain has no option for this: it calls `mp.get_context("spawn")`. If a later version calls
  # something else, it starts workers its own way, and tests report it.
  process_prefetch.mp = _Forking(context)
  # A launcher's SIGTERM and a terminal's Ctrl-C reach all processes. The server must survive, as
  # the workers end with it. Children inherit the blocked signals; starting the tracker unblocks
  # some, so they are blocked again for the server.
  before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
  try:
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    forkserver.ensure_running()
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Forking:
  """Stands in for the module `multiprocessing` in Grain."""

  def __init__(self, context):
    self._context = context

  def get_context(self, method=None):
    del method
    return self._context


def _follow_parent(*_):
  """Makes a worker live exactly as long as its parent.

  If the parent is killed, a worker would otherwise wait for it forever. And a worker that ended on
  the SIGTERM of a launcher, or on Ctrl-C, would end before its parent has saved.
  """
  for number in stopping.SIGNALS:
    signal.signal(number, signal.SIG_IGN)

  def watch():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
