"""The state of a training run."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """The state of a training run; data and random draws follow from `step` and the seed.

  Attributes:
    step: () int32, the number of steps taken.
    params: nested dictionary of parameters.
    ema: the averaged parameters; None if the run averages none.
    opt_state: the optimizer's state.
    skipped: () int32, the number of steps in a row, up to this one, that changed nothing because
      the loss or its gradient was not finite.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  skipped: jax.Array
