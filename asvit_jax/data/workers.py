"""Processes that make batches ahead of need: how they start, end with their parent, and die.

They are Grain's. What they need of libraries, JAX among it, which Grain imports, is imported once,
by a server process that they are forked from: Grain by itself starts each as a new Python. On 32
cores that is 32 times the import, and 32 times its memory.
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
_UNGUARDED = 90  # the exit code of a worker that was made to do what its parent does
_GUARD = 'if __name__ == "__main__":'


def check_script():
  """Ends a worker that runs its parent's script, and so would do all that this does.

  A worker imports the script that it was started from, which is to hold what runs once under
  `if __name__ == "__main__":`. Functions that do long work with workers call this first.
  """
  if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing asks
    os._exit(_UNGUARDED)


def prefetched(dataset, count):
  """A Grain `IterDataset` whose elements are made by so many processes.

  Raises:
    InputError: they cannot import what this process was started from.
  """
  check_script()
  main = sys.modules["__main__"]
  file = getattr(main, "__file__", None)
  if file is not None and getattr(main, "__spec__", None) is None and not os.path.isfile(file):
    raise InputError(
      f"data.workers={count} start processes that import the script, and {file} cannot be "
      f"imported: save it in a file, with what it runs under `{_GUARD}`, or set data.workers=0"
    )
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain hands absl's flags to its workers, also where none are
  _fork_from_server()
  return dataset.mp_prefetch(
    grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=1),
    worker_init_fn=_follow_parent,
  )


def close_at_exit(stream):
  """Closes a generator that reads from workers: still open at exit, they complain of leaks."""
  alive = weakref.ref(stream)

  def close():
    # A thread that waits for it still, for data that do not come, cannot be told.
    with contextlib.suppress(ValueError):
      if (found := alive()) is not None:
        found.close()

  atexit.register(close)


def following(iterator):
  """The next element of workers, or None at the end; InputError, with what to do, where one died.

  Args:
    iterator: of `prefetched`.
  """
  try:
    return next(iterator, None)
  except RuntimeError as error:  # Grain's, with the exit code
    raise InputError(f"a data worker failed ({error}){_advice(str(error))}") from error


def _advice(message):
  """What to do about a worker's exit code."""
  code = re.search(r"exit code (-?\d+)", message)
  if code is not None and int(code[1]) == _UNGUARDED:
    return (
      ": workers import the script that starts them, and this one would start over in each; put "
      f"what it runs under `{_GUARD}`, or set data.workers=0"
    )
  if code is None or int(code[1]) >= 0:
    return ": what it wrote before says why; run the same command to go on"
  number = -int(code[1])
  if number == signal.SIGBUS:
    return (
      f": a bus error means that {_SHARED_MEMORY}, which batches pass through, is full{_room()}: "
      "give it more (Docker: --shm-size=16g, or --ipc=host; Kubernetes: an emptyDir of medium "
      "Memory there), or lower data.workers, and run the same command to go on"
    )
  if number == signal.SIGKILL:
    return (
      ": it was killed, most likely for too little memory (dmesg names it): lower data.workers or "
      "give the machine or the container more memory, and run the same command to go on"
    )
  name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
  return (
    f": it was ended by {name}, from outside or by a library that decodes images; run the same "
    "command to go on, with data.workers=0 where it comes again"
  )


def _room():
  with contextlib.suppress(OSError):
    return f" (it holds {shutil.disk_usage(_SHARED_MEMORY).total / 2**20:.0f} MiB in all)"
  return ""


def _fork_from_server():
  """Has Grain fork its workers from a server that has Grain and ours imported."""
  from grain._src.python.dataset.transformations import process_prefetch

  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["grain", "asvit_jax.data.loader"])
  # Grain offers no choice, it asks `mp.get_context` for "spawn". A version that asks in another way
  # goes on as it wants to; tests say so.
  process_prefetch.mp = _Forking(context)
  # A launcher's SIGTERM and a terminal's Ctrl-C go to all processes, and the server must outlive
  # them as the workers do: where it ends, so do they. What is blocked here is blocked in what is
  # started here; the tracker's start unblocks some of it, so it is blocked again for the server.
  before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
  try:
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    forkserver.ensure_running()
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Forking:
  """`multiprocessing`, as far as Grain asks it."""

  def __init__(self, context):
    self._context = context

  def get_context(self, method=None):
    del method
    return self._context


def _follow_parent(*_):
  """Lets a worker live as long as its parent: it ends with it, and not before.

  A worker whose parent was killed would wait for it for ever. One that gets the SIGTERM which
  launchers send to all processes, or a terminal's Ctrl-C, would end before its parent has saved.
  """
  for number in stopping.SIGNALS:
    signal.signal(number, signal.SIG_IGN)

  def watch():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
