"""What a source of weights holds, in whatever format."""

import dataclasses
from typing import Any

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
  """{name: float array}, bfloat16 and half precision widened, without counters of batch norms."""
  return {
    name: _plain(value)
    for name, value in tensors.items()
    if not name.endswith(".num_batches_tracked")
  }


def _plain(value):
  value = np.asarray(value)
  return value.astype(np.float32) if value.dtype.name in ("bfloat16", "float16") else value
