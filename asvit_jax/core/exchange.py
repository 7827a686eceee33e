"""What hosts tell each other. Every function here must be called by all of them."""

import json

import jax
import numpy as np
from jax.experimental import multihost_utils

from asvit_jax.core import hosts
from asvit_jax.core.errors import InputError


def gather(value):
  """What every host gave, in their order.

  Args:
    value: anything that JSON holds.

  Returns:
    List of a value a host.
  """
  if jax.process_count() == 1:
    return [value]
  hosts.wait_for_all("an exchange")  # of the slowest, for which devices do not wait everywhere
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.int32(len(text)))
  padded = np.pad(text, (0, int(lengths.max()) - len(text)))
  rows = np.asarray(multihost_utils.process_allgather(padded))
  return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths.tolist(), strict=True)]


def check_same(values, advice):
  """Raises InputError on all hosts, naming those that differ, unless all gave the same.

  Args:
    values: dictionary of what must be the same; JSON must hold it.
    advice: what to do where it is not.
  """
  everyone = gather(values)
  for host, theirs in enumerate(everyone):
    for name, first in everyone[0].items():
      if theirs.get(name) != first:
        raise InputError(
          f"the hosts differ: {name} is {_short(theirs.get(name))} on host {host} and "
          f"{_short(first)} on host 0: {advice}"
        )


def from_first(tree):
  """The arrays of host 0, to the bit.

  Args:
    tree: of arrays; of the same shapes and types on all hosts.

  Returns:
    The same tree of NumPy arrays; where there is one host, what was given.
  """
  if jax.process_count() == 1:
    return tree
  hosts.wait_for_all("a broadcast")

  def broadcast(x):
    x = np.ascontiguousarray(x)
    sent = multihost_utils.broadcast_one_to_all(x.reshape(-1).view(np.uint8))
    return np.asarray(sent).astype(np.uint8).view(x.dtype).reshape(x.shape)

  return jax.tree.map(lambda x: broadcast(np.asarray(x)).reshape(np.shape(x)), tree)


def by_first(work):
  """Host 0 does it; the others wait.

  Args:
    work: function without arguments; what it returns, JSON must hold.

  Returns:
    What it returned, on all hosts.

  Raises:
    InputError: that of `work`, on all hosts.
  """
  if jax.process_count() == 1:
    return work()
  done = None
  if hosts.is_first():
    try:
      done = {"result": work()}
    except InputError as error:
      done = {"error": str(error)}
  done = gather(done)[0]
  if "error" in done:
    raise InputError(done["error"])
  return done["result"]


def _short(value):
  text = json.dumps(value)
  return text if len(text) < 80 else text[:77] + "..."
