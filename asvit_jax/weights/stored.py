"""`Stored`, the content of a source of weights, whatever its format."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Stored:
  """Weights as read from a source.

  Attributes:
    tensors: {name as published: array}, without the counters of batch norms.
    description: the source's description of the network, `Network.describe()` or a part of it; {}
      if there is none.
    facts: {field of `Architecture`: value} from the source or its family, beyond the description.
    usual: {field of `Architecture`: value} for fields that the source leaves open: those of the
      family's published networks.
    claims: `claims.Claim`s, what a config beside the file says of the tensors.
    stated: those of `facts` that a config beside the file states.
    family: the family of its tensor names, for display; "" if unknown.
    assumes: whether its preprocessing is the family's default, as the source states none.
    key: the unresolved remainder of the requested key, which selects one of several networks.
  """

  tensors: dict[str, np.ndarray]
  description: dict[str, Any] = dataclasses.field(default_factory=dict)
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)
  usual: dict[str, Any] = dataclasses.field(default_factory=dict)
  claims: tuple = ()
  stated: dict[str, Any] = dataclasses.field(default_factory=dict)
  family: str = ""
  assumes: bool = False
  key: str = ""


def cleaned(tensors):
  """{name: array}, floating-point arrays as float32, without counters of batch norms."""
  return {
    name: _plain(np.asarray(value))
    for name, value in tensors.items()
    if not name.endswith(".num_batches_tracked")
  }


def _plain(value):
  if not jnp.issubdtype(value.dtype, jnp.floating):
    return value  # `checks` refuses it if it is used
  with np.errstate(over="ignore"):  # overflow becomes inf, which is refused
    return value.astype(np.float32, copy=False)
