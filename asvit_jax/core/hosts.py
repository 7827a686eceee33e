"""Several hosts, and being told to stop."""

import contextlib
import os
import signal
import sys
import traceback
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from asvit_jax.core.errors import InputError

# Ours first: they work without any launcher.
_OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize():
  """Joins the other hosts where the environment says that there are some.

  Either JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID, or
  a launcher that JAX knows: Slurm, Open MPI, a TPU pod slice. Call it before anything else of JAX.

  Raises:
    InputError: only a part of the variables is set, or the other hosts cannot be reached.
  """
  given = [name for name in _OURS if os.environ.get(name)]
  launched = (
    int(os.environ.get("SLURM_NTASKS", 1)) > 1
    or int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
    or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
  )
  if given and len(given) < len(_OURS):
    missing = ", ".join(sorted(set(_OURS) - set(given)))
    raise InputError(f"{', '.join(given)} set without {missing}: set all three or none")
  try:
    if given:
      address, count, index = (os.environ[name] for name in _OURS)
      jax.distributed.initialize(address, int(count), int(index))
    elif launched:
      jax.distributed.initialize()
  except (RuntimeError, ValueError) as error:
    raise InputError(f"the hosts cannot meet ({str(error)[:300]}): check the addresses") from error


def agree(value):
  """Whether all hosts have the same value, anything with a `repr`; all must ask."""
  if jax.process_count() == 1:
    return True
  everyone = multihost_utils.process_allgather(np.uint32(zlib.crc32(repr(value).encode())))
  return bool((everyone == everyone[0]).all())


def all_true(value):
  """Whether a boolean is true on all hosts; all must ask."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.process_allgather(np.bool_(value)).all())


def wait_for_all(what):
  """Returns once every host has come here; `what` is a name for it."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


@contextlib.contextmanager
def failing_fast():
  """Of several hosts, ends this process at once where an error is raised, having said it.

  The others wait for this one, and it would wait for them at its exit, for minutes and in silence.
  """
  try:
    yield
  except Exception as error:
    if jax.process_count() == 1:
      raise
    if isinstance(error, InputError):
      print(f"error: {error}", file=sys.stderr, flush=True)
      os._exit(2)
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def is_first():
  """Whether this host writes logs, metrics and pictures."""
  return jax.process_index() == 0


class StopSignal:
  """Notes a SIGTERM, which a preempted machine gets, so that the run can save and end in order."""

  def __init__(self):
    self._received = False
    self._before = None

  def __enter__(self):
    if jax.process_count() == 1:
      try:
        self._before = signal.signal(signal.SIGTERM, self._receive)
      except ValueError:  # not in the main thread: whoever runs us handles signals
        self._before = None
    return self

  def __exit__(self, *_):
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _receive(self, *_):
    self._received = True

  def noticed(self):
    """Whether to stop now, in the middle of a step or an evaluation; never of several hosts."""
    return self._received

  def received(self, step):
    """Whether to stop after this step; all hosts answer the same."""
    if jax.process_count() > 1:  # JAX itself listens on each host and finds a step in common
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received
