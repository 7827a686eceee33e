"""Types and bounds of the fields of an `Architecture`; the bounds are far beyond real networks.

Fields also come from untrusted files. A depth of a billion would otherwise be built before anyone
notices that the file has no such blocks.
"""

import math
import operator
import reprlib

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line

MOST_PATCHES = 1 << 18
MOST_SIDE = 1 << 14  # pixels
# Upper bounds; `Architecture` itself rejects values below 1.
WHOLE = {
  "width": 1 << 14,
  "heads": 1 << 10,
  "depth": 1 << 9,
  "patch_size": 1 << 12,
  "classes": 1 << 20,
  "count_multiple": 1 << 12,
  "registers": 1 << 10,
  "text_width": 1 << 14,
}
# Representable in float32 and safe to divide by: below it, a constant token would become NaN.
LEAST_EPSILON = 1e-30
NUMBERS = {
  "mlp_ratio": (0, 64),
  "norm_epsilon": (LEAST_EPSILON, 1),
  "residual_divisor": (1e-6, 1e6),
  "layer_scale_init": (0, 1e3),
  "rope_base": (0, 1e9),
}
LISTS = {
  "prune_before": (operator.index, (-1, WHOLE["depth"])),
  "rope_grid": (operator.index, (0, MOST_SIDE)),
  "score_exponents": (float, (-100, 100)),
  "stage_weights": (float, (-1e6, 1e6)),
}
FLAGS = (
  *("qkv_bias", "layer_scale", "dist_token", "dist_head", "aux_head", "count_elementwise"),
  *("prune_inside", "class_token", "norm_after_pool", "norm_pre", "patch_bias"),
  *("pos_embed", "swiglu", "mlp_norm", "qk_norm"),
)
CHOICES = {
  "pool": ("token", "avg", "map"),
  "activation": ("gelu", "gelu_tanh", "quick_gelu"),
  "head": ("classifier", "projection", "none"),
  "rope": ("", "dinov3", "eva02"),
  "rope_merged": ("mean", "kept"),
}
NAMES = ("stem", "attention", "score", "reduction")
_KEYS = {"classes": "num_classes"}
_MOST_NAME, _MOST_TEXT = 200, 40  # characters


def plain(values):
  """Converts fields to their canonical form: Python numbers, tuples for lists.

  Args:
    values: {name of a field: value}; unknown fields are ignored.

  Raises:
    InputError: a value has the wrong type, is not finite or is out of bounds; the message names it.
  """
  found = {}
  for name, value in values.items():
    if name in WHOLE:
      found[name] = _whole(name, value, WHOLE[name])
    elif name == "image_size":
      found[name] = _size(value)
    elif name in NUMBERS:
      found[name] = _number(name, value, *NUMBERS[name])
    elif name in LISTS:
      found[name] = _numbers(name, value)
    elif name in FLAGS:
      if type(value).__name__ not in ("bool", "bool_"):  # bool_ is NumPy's
        raise _refused(name, value, "True or False")
      found[name] = bool(value)
    elif name in CHOICES:
      if not isinstance(value, str) or value not in CHOICES[name]:
        raise _refused(name, value, f"one of {', '.join(map(repr, CHOICES[name]))}")
      found[name] = value
    elif name in NAMES:
      if not isinstance(value, str) or not 0 < len(value) <= _MOST_NAME:
        raise _refused(name, value, "the name of a part")
      found[name] = value
  return found


def _whole(name, value, most):
  try:
    if isinstance(value, bool):
      raise TypeError(value)
    value = operator.index(value)
  except TypeError:
    raise _refused(name, value, "a whole number") from None
  if value > most:
    raise _refused(name, value, f"at most {most:,}")
  return value


def _size(value):
  expected = f"a side in pixels, or height and width, of at most {MOST_SIDE:,} each"
  if getattr(value, "ndim", 0) == 1 and len(value) == 2:
    value = tuple(value.tolist())
  too_long = isinstance(value, (str, tuple, list)) and len(value) > _MOST_TEXT
  if too_long or getattr(value, "ndim", 0):
    raise _refused("image_size", value, expected)
  if max(sizes.height_width(value)) > MOST_SIDE:
    raise _refused("image_size", value, expected)
  return sizes.plain(value)


def _number(name, value, least, most):
  if not _is_number(value):
    raise _refused(name, value, "a number")
  value = value if isinstance(value, int) else float(value)
  if not least <= value <= most:  # also rejects NaN and infinities
    raise _refused(name, value, f"a number in [{least:g}, {most:g}]")
  return value


def _numbers(name, values):
  kind, (least, most) = LISTS[name]
  kinds = "whole numbers" if kind is operator.index else "numbers"
  expected = f"a list of {kinds}"
  if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
    raise _refused(name, values, expected)
  try:
    count = len(values)
  except (TypeError, OverflowError):  # a zero-dimensional array; a range too long for len()
    raise _refused(name, values, expected) from None
  if count > WHOLE["depth"]:
    raise InputError(f"{name} has {count:,} items: expected at most {WHOLE['depth']}")
  found = []
  for value in values:
    if not _is_number(value) or (kind is operator.index and not hasattr(value, "__index__")):
      raise _refused(name, value, expected)
    if not least <= value <= most:
      raise _refused(name, value, f"numbers in [{least:g}, {most:g}]")
    found.append(kind(value))
  return tuple(found)


def _is_number(value):
  """Whether a value is a finite real scalar of Python or NumPy."""
  if isinstance(value, (bool, str, bytes, complex)) or getattr(value, "shape", ()) != ():
    return False
  try:
    return math.isfinite(value)
  except (TypeError, ValueError, OverflowError):
    return False


def _refused(name, value, expected):
  try:
    text = on_a_line(reprlib.repr(value))
  except ValueError:  # a number with thousands of digits
    text = "of thousands of digits"
  text = text if len(text) <= 80 else f"{text[:77]}..."
  return InputError(f"model.{_KEYS.get(name, name)} {text} is not valid: expected {expected}")
