"""What runs inside of artifacts, before it is written and after it is loaded."""

import jax
import numpy as np

from asvit_jax.core import leaves
from asvit_jax.sparsity.executions import EXECUTIONS, in_place

PLATFORMS = ("cpu", "cuda", "tpu")
_PACKED = "packed_"


def programs(network, batch_sizes):
  """The programs that an artifact of a network has.

  Args:
    network: a `Network` that computes in float32.
    batch_sizes: of the packed programs, which a network without thresholds has none of.

  Returns:
    {name: (program, its batch size or None for any)}. A program is a function of {flat name:
    parameter}, see `flat_params`, and (b, s, s, 3) uint8 images; it returns a dictionary of
    `logits` (b, classes) and `kept` (b, stages).
  """
  name, any_number = program_for_any_number(network)
  found = {name: (any_number, None)}
  if network.prunes:
    packed = _program(network, EXECUTIONS["packed"])
    found |= {f"{_PACKED}{size}": (packed, size) for size in batch_sizes}
  return found


def program_for_any_number(network):
  """The name and the program of `programs` that takes any number of images."""
  # Not cut to the size of a cache: where any number of images may come, there is no telling parts.
  name = "masked" if network.prunes else "dense"
  return name, _program(network, in_place.masked if network.prunes else in_place.dense)


def batch_size(name):
  """The batch size in the name of a program; None where it takes any."""
  return int(name.removeprefix(_PACKED)) if name.startswith(_PACKED) else None


def flat_params(network):
  """{name of a leaf: NumPy array} of a network's parameters."""
  return {name: np.asarray(leaf) for name, leaf in leaves.named(network.params)}


class Programs:
  """The programs of a loaded artifact: call it with (b, s, s, 3) uint8 images of any number.

  Args:
    programs: {batch size, or None for any: function of images that returns (logits, kept)}.

  Attributes:
    packed_sizes: batch sizes of the packed programs, increasing; empty without.
  """

  def __init__(self, programs):
    self._programs = programs
    self.packed_sizes = tuple(sorted(size for size in programs if size is not None))

  def __call__(self, images):
    """(b, s, s, 3) uint8 -> (b, classes) logits and (b, stages) kept, NumPy arrays.

    A number of images that a packed program has runs on it; any other number on the program
    for all numbers.
    """
    program = self._programs.get(len(images), self._programs[None])
    logits, kept = program(images)
    return np.asarray(logits), np.asarray(kept)


def _program(network, execution):
  structure = jax.tree.structure(network.params)
  names = [name for name, _ in leaves.named(network.params)]

  def program(flat, images):
    params = jax.tree.unflatten(structure, [flat[name] for name in names])
    images = network.preprocessing.normalize(images)
    outputs = execution(network.with_params(params).model, images)
    return {"logits": outputs.logits, "kept": outputs.kept}

  return program
