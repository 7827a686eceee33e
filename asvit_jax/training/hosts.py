"""Several hosts, and being told to stop."""

import os
import signal

import jax
from jax.experimental import multihost_utils

from asvit_jax.errors import InputError

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

  def received(self, step):
    """Whether to stop after this step; all hosts answer the same."""
    if jax.process_count() > 1:  # JAX itself listens on each host and finds a step in common
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received
