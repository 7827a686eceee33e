"""What the values of a config must be: checked before anything is opened."""

import importlib.util
import re

import jax

from asvit_jax.config.defaults import base
from asvit_jax.config.keys import flatten
from asvit_jax.config.model import architecture, preprocessing, trained_architecture
from asvit_jax.core.devices import PRECISIONS
from asvit_jax.core.errors import InputError
from asvit_jax.losses import class_weights, criteria
from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES
from asvit_jax.vit.stems import STEMS


def check_evaluation(config):
  """Raises InputError for the first value that cannot work in an evaluation."""
  _check_presence(config)
  arch = architecture(config)
  for table, name in (
    (ATTENTIONS, arch.attention),
    (SCORES, arch.score),
    (REDUCTIONS, arch.reduction),
    (STEMS, arch.stem),
  ):
    table.check(name)
  STEMS[arch.stem].check(arch)
  preprocessing(config)
  _expect(
    config,
    ("eval.batch_size", *_divides_over_devices(config.eval.batch_size)),
    ("model.dtype", config.model.dtype in ("float32", "bfloat16"), "float32 or bfloat16"),
    ("model.precision", config.model.precision in PRECISIONS, ", ".join(PRECISIONS)),
  )


def check(config):
  """Raises InputError for the first value that cannot work, before anything is opened."""
  check_evaluation(config)
  trained_architecture(config)
  _expect(
    config,
    ("batch_size", *_divides_over_devices(config.batch_size)),
    ("epochs", config.epochs > 0, "more than 0"),
    ("total_steps", config.total_steps is None or config.total_steps >= 1, "at least 1"),
    ("accumulate", *_divides_a_batch(config)),
    ("batch_size", *_pairs(config)),
    ("parallel", config.parallel in ("pmap", "shard_map"), "pmap or shard_map"),
    ("max_skipped_steps", config.max_skipped_steps >= 0, "at least 0"),
    ("optimizer.clip_norm", config.optimizer.clip_norm >= 0, "at least 0"),
    ("optimizer.thresholds_lr", config.optimizer.thresholds_lr >= 0, "at least 0"),
    ("optimizer.layer_decay", 0 < config.optimizer.layer_decay <= 1, "in (0, 1]"),
    ("model.drop_path", 0 <= config.model.drop_path < 1, "in [0, 1)"),
    ("eval.patience", config.eval.patience >= 0, "at least 0"),
    ("optimizer.freeze", _is_pattern(config.optimizer.freeze), "a regular expression"),
    ("log_every", config.log_every >= 1, "at least 1"),
    ("eval.every", config.eval.every >= 1, "at least 1"),
    ("checkpoint_every", config.checkpoint_every >= 1, "at least 1"),
    ("label_smoothing", 0 <= config.label_smoothing < 1, "in [0, 1)"),
    ("ema_decay", 0 <= config.ema_decay < 1, "in [0, 1)"),
    ("budget_tolerance", config.budget_tolerance >= 0, "at least 0"),
    ("optimizer.lr", config.optimizer.lr > 0, "more than 0"),
    ("optimizer.end_lr", config.optimizer.end_lr >= 0, "at least 0"),
    (
      "optimizer.decay_steps",
      config.optimizer.decay_steps is None or config.optimizer.decay_steps >= 1,
      "at least 1, or None",
    ),
    ("optimizer.warmup", 0 <= config.optimizer.warmup < 1, "in [0, 1)"),
    ("optimizer.weight_decay", config.optimizer.weight_decay >= 0, "at least 0"),
    ("temperature", config.temperature > 0, "more than 0"),
    ("thresholds", config.thresholds in ("fixed", "calibrated"), "fixed or calibrated"),
    ("budget_range", *_holds_the_budget(config)),
    (
      "thresholds",
      config.budget_range is None or config.thresholds == "calibrated",
      "calibrated, as there is a budget_range",
    ),
    (
      "data.crop_scale",
      len(config.data.crop_scale) == 2
      and 0 < config.data.crop_scale[0] <= config.data.crop_scale[1] <= 1,
      "two increasing numbers in (0, 1]",
    ),
    (
      "data.sampler",
      config.data.sampler in ("shuffle", "class_balanced"),
      "shuffle or class_balanced",
    ),
    ("data.rand_augment", 0 <= config.data.rand_augment <= 10, "in [0, 10]"),
    ("data.rand_augment_deviation", config.data.rand_augment_deviation >= 0, "at least 0"),
    ("data.rand_augment_operations", config.data.rand_augment_operations >= 1, "at least 1"),
    ("data.color_jitter", 0 <= config.data.color_jitter <= 1, "in [0, 1]"),
    ("data.max_bad_images", config.data.max_bad_images >= 0, "at least 0"),
    ("data.repeats", config.data.repeats >= 1, "at least 1"),
    ("mix.mode", config.mix.mode in ("pairs", "batch"), "pairs or batch"),
    ("mix.mixup", config.mix.mixup >= 0, "at least 0"),
    ("mix.cutmix", config.mix.cutmix >= 0, "at least 0"),
    ("mix.switch", 0 <= config.mix.switch <= 1, "in [0, 1]"),
    ("mix.erasing", 0 <= config.mix.erasing <= 1, "in [0, 1]"),
  )
  criteria.check(config)
  class_weights.check(config.criterion.class_weights, config.model.num_classes)
  if config.wandb and importlib.util.find_spec("wandb") is None:
    raise InputError(
      f"wandb {config.wandb!r} needs a library: pip install wandb, or leave the key empty"
    )
  if config.budget is not None and not config.init_from:
    raise InputError(
      "init_from is empty: a pruned network starts from the dense one, which also teaches it; "
      "give a .safetensors file or the workdir of a dense run"
    )
  if config.teacher_from and config.budget is None:
    raise InputError(
      "teacher_from without a budget: a dense network has no teacher; give one, or leave it out"
    )
  if config.budget is not None and config.init_new_head:
    raise InputError(
      "init_new_head with a budget: the dense network teaches the pruned one, and a new head knows "
      "nothing yet; train a dense network with the new head first and start from its workdir"
    )


def _check_presence(config):
  """None stands for what a config leaves open; where the default is a value, it is no answer."""
  given = flatten(config)
  for key, default in flatten(base()).items():
    if default is not None and given.get(key, default) is None:
      raise InputError(
        f"{key} None is not valid: expected a value, such as its default, {default!r}"
      )


def _expect(config, *expectations):
  """Raises InputError for the first (key, whether it fits, what was expected) that does not fit."""
  flat = flatten(config)
  for key, fits, expected in expectations:
    if not fits:
      raise InputError(f"{key} {flat[key]!r} is not valid: expected {expected}")


def _holds_the_budget(config):
  expected = f"two increasing shares of the dense GMACs around budget, {config.budget}, or None"
  ends = config.budget_range
  if ends is None:
    return True, expected
  return (
    config.budget is not None
    and len(ends) == 2
    and ends[0] <= config.budget <= ends[1]
    and ends[0] < ends[1] <= 1
  ), expected


def _divides_a_batch(config):
  share = config.batch_size // jax.device_count()
  fits = config.accumulate >= 1 and share % config.accumulate == 0
  return fits, f"a divisor of {share}, a device's share of batch_size"


def _pairs(config):
  share = config.batch_size // jax.device_count()
  in_pairs = config.mix.mode == "pairs" and (config.mix.mixup or config.mix.cutmix)
  fits = share % 2 == 0 or not in_pairs
  return fits, (
    "an even number for each device, as mixup and cutmix take pairs of images by mix.mode='pairs'"
  )


def _is_pattern(text):
  try:
    re.compile(text)
  except re.error:
    return False
  return True


def _divides_over_devices(batch_size):
  devices = jax.device_count()
  fits = batch_size >= 1 and batch_size % devices == 0
  return fits, f"a multiple of {devices}, the number of devices"
