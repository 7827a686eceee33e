"""Requested speed-ups, and those that a network was calibrated for."""

import dataclasses
import math
import numbers

import numpy as np

from asvit_jax.core import schema, sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.pacing.running import PACED

BATCH = 32
_EXPECTED = "expected a factor above 1 over the speed of the dense network, such as 1.5"


@dataclasses.dataclass(frozen=True)
class Speed:
  """A speed-up that a network was calibrated for.

  Attributes:
    asked: requested time of the dense network ÷ time of this one.
    reached: the same, measured; None if the times are a compiler's estimates.
    predicted: the same, predicted from the table of times.
    execution: its execution, of `running.PACED`.
    budget: share of the dense GMACs on the images of the calibration, at most 1.
    counts: number of patches that each stage keeps in fixed execution; in packed execution, their
      rounded mean.
    batch: images per batch.
    device: the device on which it was measured, or for which it was estimated.
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
    """From a dictionary that fits `SCHEMA`; unknown keys are ignored."""
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
  """The `Speed`s in a network's description.

  Args:
    description: result of `Network.describe()`.
    what: name of the file or network, for errors.
    rows: number of rows of thresholds; there is one `Speed` per row, or none at all.

  Raises:
    InputError: invalid `speedups`.
  """
  values = schema.check(description.get("speedups", []), SCHEMA, f"{what}: its speedups")
  if len(values) not in (0, rows):
    raise InputError(
      f"{what}: it has {len(values)} speedups for {rows} rows of thresholds: download or save it "
      "again"
    )
  return tuple(map(Speed.from_json, values))


def asked(speedups):
  """Converts one or several speed-ups to a tuple of different floats above 1.

  Args:
    speedups: a number of Python, NumPy or JAX, or a list or an array of them.

  Raises:
    InputError: any other value, or two equal ones.
  """
  listed = isinstance(speedups, (list, tuple)) or getattr(speedups, "ndim", 0) == 1
  found = tuple(map(_number, speedups)) if listed else (_number(speedups),)
  if not found or len(set(found)) < len(found):
    given = f"speed-ups {', '.join(f'{s:g}' for s in found)}" if found else "no speed-ups"
    raise InputError(f"{given}: expected one or more different ones")
  return found


def check_batch(batch):
  """The number of images per batch as an int; raises InputError for an invalid one."""
  if not sizes.is_whole(batch) or not 1 <= batch <= sizes.MOST_BATCH:
    raise InputError(
      f"batch {shown(batch)} of a speed-up: expected a number of images, 1 to {sizes.MOST_BATCH:,}"
    )
  return int(batch)


def check_seed(seed):
  """Raises InputError for a seed that is not a whole number of at least 0."""
  if not sizes.is_whole(seed) or seed < 0:
    raise InputError(f"seed {shown(seed)} of a speed-up: expected a whole number, 0 or more")


def check_prunes(arch):
  """Raises InputError for an `Architecture` without stages, which cannot be sped up."""
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
    raise InputError(f"speed-up {shown(value)} is not a number: {_EXPECTED}")
  if not (1 < number < math.inf):
    raise InputError(f"speed-up {number:g}: {_EXPECTED}")
  return number
