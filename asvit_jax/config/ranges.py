"""The type and the range of each key of a config, in one table.

`rules` checks conditions between keys, and between keys and devices.
"""

import dataclasses
import math
import numbers
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from asvit_jax.core import sizes
from asvit_jax.core.devices import PRECISIONS
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.data.preprocessing import CROP_MODES, INTERPOLATIONS, LEAST_CROP_RATIO
from asvit_jax.optimizers.schedule import MOST_STEPS
from asvit_jax.sparsity.complexity import check_share
from asvit_jax.vit import fields

_MOST_BATCH = sizes.MOST_BATCH
_PATH = 4096  # characters, as long as Linux lets a path be


@dataclasses.dataclass(frozen=True)
class Range:
  """The allowed values of a key.

  Attributes:
    kind: the type in words: "a whole number"; or all allowed values in words.
    is_kind: function of any value that returns whether it is of this type.
    words: the range in words: "at least 1"; "" for all values of the type.
    fits: function of a value of this type that returns whether it is in the range.
  """

  kind: str
  is_kind: Callable[[Any], bool]
  words: str = ""
  fits: Callable[[Any], bool] = lambda value: True

  @property
  def expected(self):
    """Type and range in words."""
    return ", ".join(filter(None, (self.kind, self.words)))

  def check(self, key, value):
    """Raises InputError, naming `key`, for a value that is not allowed."""
    expected = self.words
    try:
      if not self.is_kind(value):
        expected = self.expected
      elif self.fits(value):
        return
    except InputError:
      raise
    except Exception:  # comparing an object of an unknown type may raise anything
      expected = self.expected
    raise InputError(f"{key} {shown(value)} is not valid: expected {expected}")

  def or_none(self):
    """The same `Range`, but None is allowed, too."""
    return Range(
      self.kind,
      lambda value: value is None or self.is_kind(value),
      f"{self.words}, or None" if self.words else "or None",
      lambda value: value is None or self.fits(value),
    )


def whole(least=0, most=MOST_STEPS):
  """Whole numbers in [least, most]."""
  words = f"at least {least:,} and at most {most:,}"
  return Range("a whole number", _is_whole, words, lambda value: least <= value <= most)


def real(words="", fits=lambda value: True):
  """Finite numbers for which `fits` is true and that float32, which training uses, can hold."""
  return Range("a finite number that float32 can hold", _is_real, words, fits)


def between(low, high, ends="[]"):
  """Finite numbers in an interval; each end is inclusive ("[", "]") or exclusive ("(", ")")."""

  def fits(value):
    above = low <= value if ends[0] == "[" else low < value
    return above and (value <= high if ends[1] == "]" else value < high)

  return real(f"in {ends[0]}{low:g}, {high:g}{ends[1]}", fits)


def at_least(low):
  """Finite numbers from `low` on."""
  return real(f"at least {low:g}", lambda value: value >= low)


def more_than(low):
  """Finite numbers above `low`."""
  return real(f"more than {low:g}", lambda value: value > low)


def numbers_(words, fits, is_one=None):
  """Tuples or lists of numbers for which `fits` is true."""
  is_one = is_one or _is_real
  return Range(
    "numbers with commas between",
    lambda value: isinstance(value, (tuple, list)) and all(map(is_one, value)),
    words,
    fits,
  )


def text(most=_PATH):
  """Text that can be a name or a path, of at most `most` characters."""
  return Range(
    "text",
    lambda value: isinstance(value, str),
    f"at most {most:,} characters, none of them NUL",
    lambda value: len(value) <= most and "\0" not in value,
  )


def one_of(*choices):
  """One of the given texts."""
  listed = " or ".join(choices) if len(choices) == 2 else ", ".join(choices)
  return Range(listed, lambda value: isinstance(value, str) and value in choices)


def _is_whole(value):
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_real(value):
  if not isinstance(value, numbers.Real) or isinstance(value, bool):
    return False
  size = abs(float(value))  # of an integer with hundreds of digits it raises OverflowError
  info = np.finfo(np.float32)
  return math.isfinite(size) and (size == 0 or float(info.tiny) <= size <= float(info.max))


def _is_size(value):
  try:
    sizes.height_width(value)
  except InputError:
    return False
  return True


def _is_share(value):
  check_share(value)  # raises an InputError with a more precise message
  return True


def _is_pattern(value):
  try:
    re.compile(value)
  except (re.error, OverflowError, RecursionError, MemoryError):
    return False
  return "\0" not in value


def _are_shares(values):
  for value in values:
    check_share(value, "budget_range")  # raises an InputError with a more precise message
  return _increase(values) and values[0] < values[1]


def _increase(values):
  return len(values) == 2 and 0 < values[0] <= values[1] <= 1


_switch = Range("True or False", lambda value: isinstance(value, (bool, np.bool_)))
_step_count = whole(1)
_batch = whole(1, _MOST_BATCH)

RANGES = {
  "seed": whole(0, 2**63 - 1),
  "init_from": text(),
  "init_key": text(),
  "teacher_from": text(),
  "init_resize": _switch,
  "init_new_head": _switch,
  "init_step": text(),
  "init_weights_of": text(),
  "budget": real("in (0, 1]", _is_share).or_none(),
  "budget_range": numbers_(
    "two increasing shares of the dense GMACs around budget, in (0, 1]",
    _are_shares,
  ).or_none(),
  "budget_tolerance": at_least(0),
  "thresholds": one_of("fixed", "calibrated"),
  "temperature": more_than(0),
  "model.variant": text(),
  "model.num_classes": whole(1, fields.WHOLE["classes"]),
  "model.image_size": Range(
    sizes.EXPECTED,
    _is_size,
    f"at most {fields.MOST_SIDE:,} pixels a side",
    lambda value: max(sizes.height_width(value)) <= fields.MOST_SIDE,
  ),
  "model.patch_size": whole(1, fields.WHOLE["patch_size"]),
  "model.dtype": one_of("float32", "bfloat16"),
  "model.precision": one_of(*PRECISIONS),
  "model.drop_path": between(0, 1, "[)"),
  "model.remat": _switch,
  "model.kernels": _switch,
  "model.width": whole(1, fields.WHOLE["width"]).or_none(),
  "model.heads": whole(1, fields.WHOLE["heads"]).or_none(),
  "model.depth": whole(1, fields.WHOLE["depth"]).or_none(),
  "model.mlp_ratio": between(*fields.NUMBERS["mlp_ratio"], "(]").or_none(),
  "model.stem": text().or_none(),
  "model.norm_epsilon": between(*fields.NUMBERS["norm_epsilon"]).or_none(),
  "model.qkv_bias": _switch.or_none(),
  "model.residual_divisor": between(*fields.NUMBERS["residual_divisor"]).or_none(),
  "model.layer_scale": _switch.or_none(),
  "model.layer_scale_init": between(*fields.NUMBERS["layer_scale_init"]).or_none(),
  "model.pos_embed": _switch.or_none(),
  "model.rope": one_of(*fields.CHOICES["rope"]).or_none(),
  "model.rope_base": between(*fields.NUMBERS["rope_base"]).or_none(),
  "model.rope_grid": numbers_(
    "rows and columns of patches, or ()", lambda v: len(v) in (0, 2) and all(v), _is_whole
  ).or_none(),
  "model.rope_merged": one_of(*fields.CHOICES["rope_merged"]).or_none(),
  "model.swiglu": _switch.or_none(),
  "model.mlp_norm": _switch.or_none(),
  "model.qk_norm": _switch.or_none(),
  "model.dist_token": _switch.or_none(),
  "model.dist_head": _switch.or_none(),
  "model.class_token": _switch.or_none(),
  "model.registers": whole(0, fields.WHOLE["registers"]).or_none(),
  "model.pool": one_of(*fields.CHOICES["pool"]).or_none(),
  "model.norm_after_pool": _switch.or_none(),
  "model.norm_pre": _switch.or_none(),
  "model.activation": one_of(*fields.CHOICES["activation"]).or_none(),
  "model.patch_bias": _switch.or_none(),
  "model.head": one_of(*fields.CHOICES["head"]).or_none(),
  "model.text_width": whole(0, fields.WHOLE["text_width"]).or_none(),
  "model.aux_head": _switch.or_none(),
  "model.count_elementwise": _switch.or_none(),
  "model.prune_before": numbers_(
    "increasing numbers of blocks",
    lambda v: all(0 <= block < fields.WHOLE["depth"] for block in v),
    _is_whole,
  ).or_none(),
  "model.prune_inside": _switch.or_none(),
  "model.count_multiple": whole(1, fields.WHOLE["count_multiple"]).or_none(),
  "model.attention": text().or_none(),
  "model.score": text().or_none(),
  "model.reduction": text().or_none(),
  "model.score_exponents": numbers_("two to four numbers", lambda v: 2 <= len(v) <= 4).or_none(),
  "model.stage_weights": numbers_(
    "a number above 0 for each stage", lambda v: all(weight > 0 for weight in v)
  ).or_none(),
  "data.name": text(),
  "data.dir": text(),
  "data.classes": text(),
  "data.train_split": text(),
  "data.eval_split": text(),
  "data.train_labels": text(),
  "data.eval_labels": text(),
  "data.exif_orientation": _switch,
  "data.sampler": one_of("shuffle", "class_balanced"),
  "data.crop_scale": numbers_("two increasing numbers in (0, 1]", _increase),
  "data.crop_ratio": between(LEAST_CROP_RATIO, 1).or_none(),
  "data.mean": numbers_("three numbers", lambda v: len(v) == 3).or_none(),
  "data.std": numbers_("three numbers above 0", lambda v: len(v) == 3 and min(v) > 0).or_none(),
  "data.interpolation": one_of(*INTERPOLATIONS).or_none(),
  "data.crop_mode": one_of(*CROP_MODES).or_none(),
  "data.hflip": _switch,
  "data.shift": whole(0, fields.MOST_SIDE),
  "data.rand_augment": between(0, 10),
  "data.rand_augment_deviation": at_least(0),
  "data.rand_augment_operations": whole(1, 1000),
  "data.color_jitter": between(0, 1),
  "data.repeats": whole(1, 2**20),
  "data.cache": text(),
  "data.workers": whole(0, 1024),
  "data.check_images": whole(),
  "data.max_bad_images": whole(),
  "mix.mixup": at_least(0),
  "mix.cutmix": at_least(0),
  "mix.switch": between(0, 1),
  "mix.erasing": between(0, 1),
  "mix.mode": one_of("pairs", "batch"),
  "batch_size": _batch,
  "accumulate": whole(1, _MOST_BATCH),
  "parallel": one_of("pmap", "shard_map"),
  "max_skipped_steps": whole(),
  "epochs": more_than(0),
  "total_steps": _step_count.or_none(),
  "label_smoothing": between(0, 1, "[)"),
  "ema_decay": between(0, 1, "[)"),
  "ema_warmup": _switch,
  "optimizer.name": text(),
  "optimizer.lr": more_than(0),
  "optimizer.end_lr": at_least(0),
  "optimizer.warmup": between(0, 1, "[)"),
  "optimizer.decay_steps": _step_count.or_none(),
  "optimizer.weight_decay": at_least(0),
  "optimizer.clip_norm": at_least(0),
  "optimizer.thresholds_lr": at_least(0),
  "optimizer.layer_decay": between(0, 1, "(]"),
  "optimizer.freeze": Range(
    "text", lambda v: isinstance(v, str), "a regular expression", _is_pattern
  ),
  "criterion.name": text(),
  "criterion.class_weights": text(2**24),  # a number for each class
  "eval.batch_size": _batch,
  "eval.every": _step_count,
  "eval.patience": whole(),
  "eval.pictures": whole(),
  "wandb": text(),
  "log_every": _step_count,
  "checkpoint_every": _step_count,
}

_OF_LOSS = real()  # weights of loss terms, to which users may add their own


def of(key):
  """The `Range` of a key of `config.base`; None for a key that the user added."""
  return _OF_LOSS if key.startswith("loss.") else RANGES.get(key)
