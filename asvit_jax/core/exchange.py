"""Exchange of values between hosts. Every function here must be called on all hosts."""

import json

import jax
import numpy as np
from jax.experimental import multihost_utils

from asvit_jax.core import hosts
from asvit_jax.core.errors import InputError


def gather(value):
  """The values of all hosts, in the order of the hosts.

  Args:
    value: any value that JSON can represent.

  Returns:
    List with one value per host.
  """
  if jax.process_count() == 1:
    return [value]
  hosts.wait_for_all("an exchange")  # a collective may time out before the slowest host arrives
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  lengths = multihost_utils.process_allgather(np.int32(len(text)))
  padded = np.pad(text, (0, int(lengths.max()) - len(text)))
  rows = np.asarray(multihost_utils.process_allgather(padded))
  return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths.tolist(), strict=True)]


def check_same(values, advice):
  """Raises InputError on all hosts, naming a host that differs, unless all hosts gave equal values.

  Args:
    values: dictionary of the values that must be equal; JSON must be able to represent it.
    advice: what to do if they differ, for the error.
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
  """The arrays of host 0, bit for bit.

  Args:
    tree: tree of arrays, with equal shapes and types on all hosts.

  Returns:
    The same tree of NumPy arrays; on a single host, the argument itself.
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
  """Runs a function on host 0 while the others wait, and returns its result on all hosts.

  Args:
    work: function without arguments; its result must be representable in JSON.

  Raises:
    InputError: raised on all hosts if `work` raised it.
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
