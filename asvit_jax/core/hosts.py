"""Joining several hosts, agreeing with them, and stopping on a signal."""

import contextlib
import itertools
import os
import re
import signal
import traceback
import warnings
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from asvit_jax.core import stopping
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import error_line
from asvit_jax.core.progress import log

# These variables take precedence: they need no launcher.
_OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


_MOST_HOSTS = 2**20
_LONGEST_WAIT_MS = 24 * 60 * 60 * 1000
_meetings = itertools.count()


def initialize():
  """Joins the other hosts of a job; on a single machine it returns at once.

  The hosts are given by JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and
  JAX_PROCESS_ID, or found by JAX: from the metadata server of a Cloud TPU VM, GKE's variables,
  Slurm, Open MPI or Kubernetes. Call it before any other use of JAX.

  Raises:
    InputError: only some of the variables are set, or the other hosts cannot be found or reached.
  """
  given = [name for name in _OURS if os.environ.get(name)]
  if given and len(given) < len(_OURS):
    missing = ", ".join(sorted(set(_OURS) - set(given)))
    raise InputError(f"{', '.join(given)} set without {missing}: set all three or none")
  if given:
    address, count, index = (os.environ[name] for name in _OURS)
    if not (_is_count(count) and _is_count(index) and int(index) < int(count) <= _MOST_HOSTS):
      raise InputError(
        f"JAX_NUM_PROCESSES={count} and JAX_PROCESS_ID={index}: expected the number of hosts, and "
        "of this one, counted from 0"
      )
    _join(address, int(count), int(index))
    return
  name, count = _detected()
  if count > 1:
    log(f"waiting for the {count} hosts of this job (found by JAX: {name})")
    _join()


def _is_count(text):
  return re.fullmatch(r"[0-9]{1,9}", text) is not None


def _join(*arguments):
  try:
    jax.distributed.initialize(*arguments)
  except (RuntimeError, ValueError) as error:
    raise InputError(
      f"the hosts cannot connect ({str(error)[:300]}): check the addresses"
    ) from error


def _detected():
  """(name, number of hosts) of the cluster that JAX detects for this process; ("", 1) for none.

  `jax.distributed.initialize()` performs the same detection, but it also opens the coordinator's
  port on a single machine, where a second process would then fail.
  """
  from jax._src import clusters  # no public API

  try:
    with warnings.catch_warnings(action="ignore"):  # every container of Kubernetes raises one
      for kind in clusters.ClusterEnv._cluster_types:
        if not kind.opt_in_only_method and kind.is_env_present():
          return kind.name, kind.get_process_count()
  except Exception as error:  # the metadata server and Kubernetes raise errors of no common type
    log(f"WARNING: JAX cannot determine whether there are other hosts ({str(error)[:300]})")
    if jax.process_count() == 1:
      return "", 1
    raise InputError(
      f"this is one of {jax.process_count()} hosts, and JAX cannot find the others: set "
      f"{', '.join(_OURS)}"
    ) from error
  started = os.environ.get("OMPI_COMM_WORLD_SIZE", "1")
  if not _is_count(started) or int(started) > 1:  # mpirun, but not as JAX detects it
    raise InputError(
      f"mpirun started several processes, but JAX cannot find them: set {', '.join(_OURS)}"
    )
  return "", 1


def agree(value):
  """Whether all hosts have the same value (anything with a `repr`); call it on all hosts."""
  if jax.process_count() == 1:
    return True
  wait_for_all("whether they agree")
  everyone = multihost_utils.process_allgather(np.uint32(zlib.crc32(repr(value).encode())))
  return bool((everyone == everyone[0]).all())


def all_true(value):
  """Whether a boolean is true on all hosts; call it on all hosts."""
  if jax.process_count() == 1:
    return value
  wait_for_all("whether all say yes")
  return bool(multihost_utils.process_allgather(np.bool_(value)).all())


def wait_for_all(what):
  """Returns once every host has called it, however long that takes; `what` names the barrier.

  The barrier does not use devices, whose collectives time out after 30 s on CPUs (Gloo). If a host
  dies meanwhile, JAX's heartbeat ends the others.
  """
  if jax.process_count() == 1:
    return
  from jax._src import distributed  # no public API; Orbax uses it, too

  client = distributed.global_state.client
  if client is None:  # the caller joined the hosts in another way
    multihost_utils.sync_global_devices(what)
  else:  # a barrier's name can be used once
    client.wait_at_barrier(f"asvit_jax {next(_meetings)}: {what}", _LONGEST_WAIT_MS)


@contextlib.contextmanager
def joined():
  """A context for commands: `initialize`, then `failing_fast`."""
  initialize()
  with failing_fast():
    yield


@contextlib.contextmanager
def failing_fast():
  """With several hosts, a context that prints an error and ends this process at once.

  Otherwise the other hosts would wait for this one, and it for them at exit, silently and for
  minutes.
  """
  try:
    yield
  except Exception as error:
    if jax.process_count() == 1:
      raise
    if isinstance(error, InputError):
      log(error_line(error))
      os._exit(2)
    log(traceback.format_exc())
    os._exit(1)


def is_first():
  """Whether this is host 0, which writes logs, metrics and pictures."""
  return jax.process_index() == 0


def log_first(message):
  """Logs a line of progress on the first host; the others log nothing."""
  if is_first():
    log(message)


class StopSignal:
  """Records a stop signal so that the run can save and end; a second signal ends it at once.

  The signals are SIGTERM (preemption), SIGINT (Ctrl-C) and SIGHUP (the terminal was closed). SIGINT
  and SIGHUP stay ignored where they already are: under `nohup`, or in a script's background job.
  """

  last = None  # number of the last signal recorded in this process

  def __init__(self):
    self._received = None
    self._before = {}
    count = stopping.Count(stopping.SIGNALS, self._say, stopping.end_at_once)
    self._watch = stopping.Watch(count)

  def __enter__(self):
    alone = jax.process_count() == 1
    signals = stopping.SIGNALS if alone else stopping.SIGNALS[1:]  # else JAX handles SIGTERM
    for number in signals:
      before = signal.getsignal(number)
      if before is signal.SIG_IGN and number != signal.SIGTERM:
        continue
      with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
        signal.signal(number, self._receive if alone else _hand_to_jax)
        self._before[number] = before
    self._watch.__enter__()
    return self

  def __exit__(self, *error):
    self._watch.__exit__(*error)
    for number, before in self._before.items():
      # None: the handler was installed outside Python, which cannot restore it.
      signal.signal(number, signal.SIG_DFL if before is None else before)

  def _receive(self, number, _):
    if self._received is None:
      self._received = StopSignal.last = number

  def _say(self, number):
    name = signal.Signals(number).name
    log(f"told to stop ({name}): saving the last step; a second signal ends the run at once")

  def noticed(self):
    """Whether to stop now, within a step or an evaluation; always False with several hosts."""
    return self._received is not None

  def received(self, step):
    """Whether to stop after this step; all hosts get the same answer."""
    if jax.process_count() > 1:  # JAX agrees on one step for all hosts
      return multihost_utils.reached_preemption_sync_point(step)
    return self.noticed()


def _hand_to_jax(number, _):
  """Stops all hosts: JAX listens for SIGTERM and tells the others."""
  StopSignal.last = number
  os.kill(os.getpid(), signal.SIGTERM)
