"""Checks of the tensors of any file: of their list, before they are read, and of their values.

Files may come from strangers. Names and shapes are checked before memory is allocated for them, and
the memory allocated is proportional to the size of the file.
"""

import re

import jax.numpy as jnp
import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line

# The deepest published ViTs have 56 blocks of 16 tensors; optimizers keep two more of each.
MOST_TENSORS = 65_536
MOST_BLOCKS = 128
_MOST_CHARACTERS = 512
_MOST_AXES = 8
# Limits for compressed archives: weights compress to half at best, unless they are zeros.
_MOST_TIMES = 20
_LITTLE = 64 << 20
_FLOAT8 = re.compile(r"(F8|float8)_", re.IGNORECASE)
_SCALE = re.compile(r"(^|[._])(scales?|scale_(inv|weight|input)|scaled_fp8)$")


def check_listed(listed, source):
  """Checks the tensors that a file lists, before any of them is read.

  Args:
    listed: {name: (shape, name of the type)}.
    source: the file, for the error.

  Raises:
    InputError: more tensors, longer names or more axes than weights have, empty tensors,
      unprintable names, or 8-bit numbers with scales, which are not supported.
  """
  if len(listed) > MOST_TENSORS:
    raise InputError(
      f"{source} lists {len(listed):,} tensors, expected at most {MOST_TENSORS:,}: it is not a ViT"
    )
  for name, (shape, _) in listed.items():
    if len(name) > _MOST_CHARACTERS or on_a_line(name) != name:
      raise InputError(
        f"{source} has a tensor whose name is {len(name):,} characters long or cannot be printed, "
        f"'{on_a_line(name[:60])}': expected names as in docs/weights.md"
      )
    if len(shape) > _MOST_AXES:
      raise InputError(
        f"{source}: tensor {name} has {len(shape)} axes, expected at most {_MOST_AXES}: fetch the "
        "file again, or give other weights"
      )
    if 0 in shape:
      raise InputError(
        f"{source}: tensor {name} is empty, of shape {tuple(shape)}: fetch the file again, or give "
        "other weights"
      )
  scale = next((name for name in listed if _SCALE.search(name)), None)
  short = next((name for name, (_, kind) in listed.items() if _FLOAT8.match(kind)), None)
  if scale is not None and short is not None:
    raise InputError(
      f"{source} is quantised: {short} is of type {listed[short][1]} and has a scale beside it "
      f"({scale}), which is not applied here: give the weights in float32, float16 or bfloat16"
    )


def check_unpacked(size, path, source):
  """Raises InputError if an archive states that it unpacks to far more than its own size.

  Args:
    size: the stated total size of its members, bytes.
    path: path of the archive.
    source: name of the source, for the error.
  """
  most = max(_LITTLE, _MOST_TIMES * path.stat().st_size)
  if size > most:
    raise InputError(
      f"{source} would take {size:,} bytes of memory, expected at most {most:,} for a file of its "
      "size: it does not look like weights; if you trust it, unpack it and save it as .safetensors"
    )


def check_numbers(tensors, source):
  """Raises InputError for the first tensor of integers, or with a non-finite value.

  Args:
    tensors: {name: array} of the tensors used.
    source: name of the source, for the error.
  """
  for name, value in tensors.items():
    if not jnp.issubdtype(value.dtype, jnp.floating):
      raise InputError(
        f"{source}: tensor {name} is of type {value.dtype}, expected floating point: quantised "
        "weights are not supported; give them in float32, float16 or bfloat16"
      )
    finite = np.isfinite(value)
    if not finite.all():
      index = tuple(int(i) for i in np.argwhere(~finite)[0])
      raise InputError(
        f"{source}: tensor {name} is not finite: {value[index]} at {list(index)} "
        f"({int((~finite).sum()):,} of its {value.size:,} numbers): give weights from before they "
        "diverged, or fetch the file again"
      )
