"""What a source of weights holds, in whatever format."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Stored:
  """Weights as they were found.

  Attributes:
    tensors: {name as published: array}, without the counters of batch norms.
    description: what the source says of the network, `Network.describe()` or a part of it; {} where
      it says nothing.
    facts: {field of `Architecture`: value} that the source says, or its kind has, beyond that.
    family: whose names its tensors had, for people; "" where nobody's that is known.
    assumes: whether its preprocessing is what is usual, as the source says nothing of it.
    key: of what is asked for, which of several networks, the part that is still to be found.
  """

  tensors: dict[str, np.ndarray]
  description: dict[str, Any] = dataclasses.field(default_factory=dict)
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)
  family: str = ""
  assumes: bool = False
  key: str = ""


def cleaned(tensors):
  """{name: array}, those in floating point as float32, without counters of batch norms."""
  return {
    name: _plain(np.asarray(value))
    for name, value in tensors.items()
    if not name.endswith(".num_batches_tracked")
  }


def _plain(value):
  if not jnp.issubdtype(value.dtype, jnp.floating):
    return value  # `checks` refuses it where it is used
  with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, which is refused
    return value.astype(np.float32, copy=False)
