"""What a run needs to go on."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything a run needs to go on; data and randomness follow from `step` and the seed.

  `ema` is None where the config asks for none. `skipped` counts the steps in a row, up to this one,
  that changed nothing because the loss or its gradient was not finite.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  skipped: jax.Array
