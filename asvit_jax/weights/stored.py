"""What a source of weights holds, in whatever format."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Stored:
  """Weights as they were found.

  Attributes:
    tensors: {name as published: array}, without `module.` and the counters of batch norms.
    description: what the source says of the network, `Network.describe()`; {} where it says
      nothing.
  """

  tensors: dict[str, np.ndarray]
  description: dict[str, Any] = dataclasses.field(default_factory=dict)


def cleaned(tensors):
  """{name: array} without what training scripts add: `module.` of a parallel model, counters."""
  named = {name.removeprefix("module."): np.asarray(value) for name, value in tensors.items()}
  return {k: v for k, v in named.items() if not k.endswith(".num_batches_tracked")}
