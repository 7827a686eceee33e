"""The speeds that users ask for, and those that a network was calibrated for."""

import dataclasses
import math
import numbers

import numpy as np

from asvit_jax.core import schema, sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.pacing.running import PACED

BATCH = 32
_EXPECTED = "expected how many times as fast as the dense network it shall be, above 1, as 1.5"


@dataclasses.dataclass(frozen=True)
class Speed:
  """A speed that a network was calibrated for.

  Attributes:
    asked: time of the dense network ÷ time of this one, as asked for.
    reached: the same, measured; None where times are a compiler's estimates.
    predicted: the same, from the table of times.
    execution: how it runs, of `running.PACED`.
    budget: share of the dense GMACs that it takes on the images of the calibration, at most 1.
    counts: patches that each stage keeps, where every image keeps the same number.
    batch: images a batch.
    device: what it was measured on, or the estimates are of.
  """

  asked: float
  reached: float | None
  predicted: float
  execution: str
  budget: float
  counts: tuple[int, ...]
  batch: int
  device: str

  def to_json(self):
    """As a dictionary for JSON."""
    return dataclasses.asdict(self) | {"counts": list(self.counts)}

  @classmethod
  def from_json(cls, values):
    """From a dictionary of the form `SCHEMA`; keys that are not known are left out."""
    known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
    return cls(**known | {"counts": tuple(known["counts"])})


_FIELDS = {
  "asked": schema.number(1, 1e6),
  "reached": schema.either(schema.number(1e-6, 1e6), schema.NULL),
  "predicted": schema.number(1e-6, 1e6),
  "execution": schema.text(choices=PACED),
  "budget": schema.number(1e-6, 1),
  "counts": schema.array(schema.integer(), most=1 << 10),
  "batch": schema.integer(1, sizes.MOST_BATCH),
  "device": schema.text(200),
}
SCHEMA = schema.array(schema.table(_FIELDS, required=tuple(_FIELDS)), most=1000)


def from_description(description, what, rows):
  """The `Speed`s of a `Network.describe()`.

  Args:
    description: it.
    what: it is of, for the error.
    rows: of thresholds, each of which has one, where there are any.

  Raises:
    InputError: something else.
  """
  values = schema.check(description.get("speedups", []), SCHEMA, f"{what}: its speedups")
  if len(values) not in (0, rows):
    raise InputError(
      f"{what}: it has {len(values)} speedups for {rows} rows of thresholds: fetch or write it "
      "again"
    )
  return tuple(map(Speed.from_json, values))


def asked(speedups):
  """One speed-up or several as a tuple of floats, each above 1, no two equal.

  Args:
    speedups: a number of Python, NumPy or JAX, or a list or an array of them.

  Raises:
    InputError: anything else.
  """
  listed = isinstance(speedups, (list, tuple)) or getattr(speedups, "ndim", 0) == 1
  found = tuple(map(_number, speedups)) if listed else (_number(speedups),)
  if not found or len(set(found)) < len(found):
    given = f"speed-ups {', '.join(f'{s:g}' for s in found)}" if found else "no speed-ups"
    raise InputError(f"{given}: expected one or more, each another")
  return found


def check_batch(batch):
  """The images a batch as an integer; raises InputError for what is no such number."""
  if not sizes.is_whole(batch) or not 1 <= batch <= sizes.MOST_BATCH:
    raise InputError(
      f"batch {shown(batch)} of a speed-up: expected a number of images, 1 to {sizes.MOST_BATCH:,}"
    )
  return int(batch)


def check_seed(seed):
  """Raises InputError where a seed is no whole number from 0 on."""
  if not sizes.is_whole(seed) or seed < 0:
    raise InputError(f"seed {shown(seed)} of a speed-up: expected a whole number, 0 or more")


def check_prunes(arch):
  """Raises InputError for an `Architecture` that prunes nowhere, which no speed can be asked of."""
  if not arch.prune_before:
    raise InputError("a speed-up for a network that prunes nowhere: prune_before is empty")


def _number(value):
  number = None
  if not isinstance(value, (bool, np.bool_, str, bytes, list, tuple)):
    try:
      array = np.asarray(value)
      if array.shape == () and (array.dtype.kind in "fiu" or isinstance(value, numbers.Real)):
        number = float(value)
    except (OverflowError, TypeError, ValueError):  # of arrays of other libraries
      number = None
  if number is None:
    raise InputError(f"speed-up {shown(value)} is no number: {_EXPECTED}")
  if not (1 < number < math.inf):
    raise InputError(f"speed-up {number:g}: {_EXPECTED}")
  return number
