"""Targets by name: `tpu:v5e:2x4`, `gpu:h100:8`."""

import dataclasses
import math
import re

from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.targets.chips import GPUS, TPUS, Chip

_FORMS = "tpu:v5e:2x4 (the shape of the slice, in chips) or gpu:h100:8 (GPUs of one machine)"
_TWO_DIMENSIONS = ("v5e", "v6e")  # the others are wired in three
_MOST = 1024  # chips; beyond, nothing was tried


@dataclasses.dataclass(frozen=True)
class Target:
  """Accelerators that a program may be compiled for.

  Attributes:
    name: as the user wrote it.
    chip: what each of them is.
    kind: name of the chip, a key of `chips.TPUS` or `chips.GPUS`.
    shape: of the slice; (count,) of GPUs.
    host: shape of the part of it that one host has.
  """

  name: str
  chip: Chip
  kind: str
  shape: tuple[int, ...]
  host: tuple[int, ...]

  @property
  def devices(self):
    """Number of them."""
    return math.prod(self.shape)

  @property
  def hosts(self):
    """Number of hosts that they are part of."""
    return self.devices // math.prod(self.host)


def parse(name):
  """The `Target` of that name.

  Args:
    name: `tpu:KIND:SHAPE` or `gpu:KIND[:COUNT]`.

  Raises:
    InputError: another form, a chip that is not known, or a shape that there is none of.
  """
  platform, _, rest = name.partition(":")
  kind, _, shape = rest.partition(":")
  if platform == "tpu":
    return _tpu(name, kind, shape)
  if platform == "gpu":
    return _gpu(name, kind, shape or "1")
  raise InputError(f"--target {name!r}: expected {_FORMS}")


def _tpu(name, kind, text):
  _check_kind(name, kind, TPUS)
  dimensions = 2 if kind in _TWO_DIMENSIONS else 3
  example = "2x4" if dimensions == 2 else "2x2x2"
  if not re.fullmatch(rf"[1-9]\d*(x[1-9]\d*){{{dimensions - 1}}}", text):
    raise InputError(
      f"--target {name!r}: expected the shape of a slice of {kind}, {dimensions} numbers, such as "
      f"tpu:{kind}:{example}"
    )
  shape = tuple(map(int, text.split("x")))
  whole = shape in ((1, 1), (2, 4))  # machines of one chip, and of eight
  host = shape if whole else (2, 2, 1)[:dimensions]
  if any(chips % of_host for chips, of_host in zip(shape, host, strict=True)):
    raise InputError(
      f"--target {name!r}: a host of {kind} has {'x'.join(map(str, host))} chips: expected sides "
      f"that are multiples of these, such as tpu:{kind}:{example}"
      + (f", or tpu:{kind}:1x1" if dimensions == 2 else "")
    )
  _check_count(name, math.prod(shape))
  return Target(name, TPUS[kind], kind, shape, host)


def _gpu(name, kind, text):
  _check_kind(name, kind, GPUS)
  if not re.fullmatch(r"[1-9]\d*", text):
    raise InputError(f"--target {name!r}: expected a number of GPUs, such as gpu:{kind}:8")
  shape = (int(text),)
  _check_count(name, *shape)
  return Target(name, GPUS[kind], kind, shape, shape)


def _check_kind(name, kind, known):
  if kind not in known:
    raise InputError(
      f"--target {name!r}: {kind or 'no chip'!r} is not known, choose from {', '.join(known)}; "
      f"expected {_FORMS}{hint(kind, known)}"
    )


def _check_count(name, count):
  if count > _MOST:
    raise InputError(f"--target {name!r}: {count} devices, expected at most {_MOST}")
