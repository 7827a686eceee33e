"""The configuration: every key with its default, and what is derived from it.

A file in `configs/` starts from `base()` and changes what its recipe needs. Keys are locked, so a
misspelt one is an error that names the nearest.
"""

import dataclasses
import json
import math
import os
import pathlib
import re

import jax
from ml_collections import ConfigDict, config_dict

from asvit_jax import complexity, vit
from asvit_jax.errors import InputError


def base():
  """The defaults: the paper's recipe (arXiv:2209.13802, section 4) with a plain augmentation."""
  config = ConfigDict()
  config.seed = 0
  config.init_from = ""  # dense weights to start from, also the teacher: a file, a workdir or hf:…
  config.init_resize = False  # take weights of another image size: interpolate their positions
  config.init_new_head = False  # take weights of another number of classes: with a new head
  config.budget = config_dict.placeholder(float)  # share of the dense GMACs; None: a dense network
  config.thresholds = "fixed"  # where they start: "fixed" (0.001, 0.002, …) or "calibrated"
  config.temperature = 1e-4  # of the gate's gradient: how near a score must be to move a threshold

  config.model = ConfigDict()
  config.model.variant = "deit_s"  # a key of vit.VARIANTS
  config.model.num_classes = 1000
  config.model.image_size = 224  # pixels
  config.model.patch_size = 16  # pixels
  config.model.dtype = "float32"  # compute type; parameters stay float32
  config.model.remat = False  # compute blocks again in the backward pass: less memory, more time

  config.data = ConfigDict()
  config.data.name = "folder"  # "folder", "digits" or "tfds:NAME"
  config.data.dir = ""
  config.data.classes = ""  # file with a class a line, in label order; "": sorted directory names
  config.data.train_split = "train"
  config.data.eval_split = "val"
  config.data.crop_scale = (0.08, 1.0)  # share of the image's area; (1.0, 1.0): the centre crop
  config.data.crop_ratio = 0.875  # evaluation: side of the crop ÷ shorter side of the image
  config.data.hflip = True
  config.data.shift = 0  # random translation in training, pixels
  config.data.rand_augment = 0.0  # mean magnitude of RandAugment, at most 10; 0: none
  config.data.rand_augment_deviation = 0.5  # of the magnitude
  config.data.rand_augment_operations = 2  # an image
  config.data.color_jitter = 0.0  # change of brightness, contrast and saturation; 0: none
  config.data.repeats = 1  # views of an image close together; an epoch has no more views
  config.data.workers = 0  # processes that decode; 0: threads
  config.data.check_images = 2000  # decoded before training starts; all when there are fewer
  config.data.max_bad_images = 0  # unreadable ones to leave out, a split and host

  config.mix = ConfigDict()  # on the device
  config.mix.mixup = 0.0  # alpha of the Beta distribution; 0: none
  config.mix.cutmix = 0.0  # alpha of the Beta distribution; 0: none
  config.mix.switch = 0.5  # probability of cutmix where both are on
  config.mix.erasing = 0.0  # probability of an image to lose a rectangle; 0: none

  config.batch_size = 512  # images a step, over all devices of all hosts
  config.accumulate = 1  # parts that a device's share of them runs in, one after the other
  config.parallel = "pmap"  # or "shard_map": the same step, the same result
  config.max_skipped_steps = 3  # in a row whose loss is not finite, before the run stops
  config.epochs = 30.0
  config.total_steps = config_dict.placeholder(int)  # instead of epochs
  config.label_smoothing = 0.1
  config.ema_decay = 0.99996  # averaged weights, the ones evaluated; 0: none

  config.optimizer = ConfigDict()
  config.optimizer.lr = 2e-5  # for a batch of 512; scales with the batch
  config.optimizer.end_lr = 2e-6
  config.optimizer.warmup = 0.0  # share of all steps
  config.optimizer.weight_decay = 1e-6
  config.optimizer.clip_norm = 0.0  # of the gradient; 0: none
  config.optimizer.thresholds_lr = 1.0  # the thresholds' learning rate ÷ that of the rest
  config.optimizer.freeze = ""  # regular expression: parameters that stay, "patch_embed|blocks.0"

  config.loss = ConfigDict()  # weights of the terms
  config.loss.classification = 1.0
  config.loss.budget = 2.0  # a GMAC away from the target
  config.loss.distillation = 0.5
  config.loss.token_distillation = 0.5  # of the auxiliary head, where there is one

  config.eval = ConfigDict()
  config.eval.batch_size = 256
  config.eval.every = 1000  # steps
  config.eval.pictures = 6  # images whose kept tokens every evaluation draws; 0: none

  config.log_every = 50  # steps
  config.checkpoint_every = 1000  # steps
  return config.lock()


# May change from one call of train.py to the next; everything else belongs to the run.
_FREE = (
  "data.dir",
  "data.classes",
  "data.workers",
  "data.check_images",
  "data.max_bad_images",
  "eval.batch_size",
  "eval.every",
  "eval.pictures",
  "log_every",
  "checkpoint_every",
  "parallel",
)


def variant(config):
  """The `Architecture` that the model's keys describe, pruning included.

  Raises:
    InputError: an unknown variant, or keys that do not fit each other.
  """
  model = config.model
  if model.variant not in vit.VARIANTS:
    raise InputError(
      f"model.variant {model.variant!r} is not known: choose from {', '.join(vit.VARIANTS)}"
    )
  return dataclasses.replace(
    vit.VARIANTS[model.variant],
    image_size=model.image_size,
    patch_size=model.patch_size,
    classes=model.num_classes,
  )


def architecture(config):
  """The `Architecture` to train: pruned where there is a budget, which is checked, else dense."""
  arch = variant(config)
  if config.budget is None:
    return arch.dense
  complexity.check_budget(arch, config.budget)
  return arch


def total_steps(config, images):
  """Number of training steps of a data set with that many images."""
  if config.total_steps is not None:
    return config.total_steps
  return max(1, math.ceil(config.epochs * images / config.batch_size))


def check_evaluation(config):
  """Raises InputError for the first value that cannot work in an evaluation."""
  variant(config)
  _expect(
    config,
    ("eval.batch_size", *_divides_over_devices(config.eval.batch_size)),
    ("model.dtype", config.model.dtype in ("float32", "bfloat16"), "float32 or bfloat16"),
    ("data.crop_ratio", 0 < config.data.crop_ratio <= 1, "in (0, 1]"),
  )


def check(config):
  """Raises InputError for the first value that cannot work, before anything is opened."""
  architecture(config)
  check_evaluation(config)
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
    ("optimizer.freeze", _is_pattern(config.optimizer.freeze), "a regular expression"),
    ("log_every", config.log_every >= 1, "at least 1"),
    ("eval.every", config.eval.every >= 1, "at least 1"),
    ("checkpoint_every", config.checkpoint_every >= 1, "at least 1"),
    ("label_smoothing", 0 <= config.label_smoothing < 1, "in [0, 1)"),
    ("ema_decay", 0 <= config.ema_decay < 1, "in [0, 1)"),
    ("optimizer.lr", config.optimizer.lr > 0, "more than 0"),
    ("optimizer.end_lr", config.optimizer.end_lr >= 0, "at least 0"),
    ("optimizer.warmup", 0 <= config.optimizer.warmup < 1, "in [0, 1)"),
    ("optimizer.weight_decay", config.optimizer.weight_decay >= 0, "at least 0"),
    ("temperature", config.temperature > 0, "more than 0"),
    ("thresholds", config.thresholds in ("fixed", "calibrated"), "fixed or calibrated"),
    (
      "data.crop_scale",
      len(config.data.crop_scale) == 2
      and 0 < config.data.crop_scale[0] <= config.data.crop_scale[1] <= 1,
      "two increasing numbers in (0, 1]",
    ),
    ("data.rand_augment", 0 <= config.data.rand_augment <= 10, "in [0, 10]"),
    ("data.rand_augment_deviation", config.data.rand_augment_deviation >= 0, "at least 0"),
    ("data.rand_augment_operations", config.data.rand_augment_operations >= 1, "at least 1"),
    ("data.color_jitter", 0 <= config.data.color_jitter <= 1, "in [0, 1]"),
    ("data.max_bad_images", config.data.max_bad_images >= 0, "at least 0"),
    ("data.repeats", config.data.repeats >= 1, "at least 1"),
    ("mix.mixup", config.mix.mixup >= 0, "at least 0"),
    ("mix.cutmix", config.mix.cutmix >= 0, "at least 0"),
    ("mix.switch", 0 <= config.mix.switch <= 1, "in [0, 1]"),
    ("mix.erasing", 0 <= config.mix.erasing <= 1, "in [0, 1]"),
  )
  if config.budget is not None and not config.init_from:
    raise InputError(
      "init_from is empty: a pruned network starts from the dense one, which also teaches it; "
      "give a .safetensors file or the workdir of a dense run"
    )
  if config.budget is not None and config.init_new_head:
    raise InputError(
      "init_new_head with a budget: the dense network teaches the pruned one, and a new head knows "
      "nothing yet; train a dense network with the new head first and start from its workdir"
    )


def check_workdir(config, workdir):
  """Raises InputError where a run of another config is there, or nothing could be written."""
  path = pathlib.Path(workdir) / "config.json"
  if path.exists():
    before, now = _flatten(load(workdir)), _flatten(config)
    changed = [k for k in now if now[k] != before[k] and k not in _FREE]
    if changed:
      listed = "; ".join(f"{k} was {before[k]!r}, is {now[k]!r}" for k in changed)
      raise InputError(f"{workdir} holds a run of another config ({listed}): use another --workdir")
  place = path.parent
  while not place.exists():
    place = place.parent
  if not (place.is_dir() and os.access(place, os.W_OK)):
    raise InputError(f"cannot write to workdir {workdir}: {place} is not a writable directory")


def save(config, workdir):
  """Writes the config beside the run; raises InputError if a run of another config is there."""
  check_workdir(config, workdir)
  path = pathlib.Path(workdir) / "config.json"
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    partial.replace(path)
  except OSError as error:
    raise InputError(f"cannot write to workdir {workdir}: {error}") from error


def choose(config, workdir, weights):
  """The config of a tool that takes --workdir or --weights: the one given, or that of the run.

  Args:
    config: given by the user, or None.
    workdir: of a run, or None.
    weights: a file, or None.

  Raises:
    InputError: both or neither of `workdir` and `weights`; weights without a config; no workdir.
  """
  if (workdir is None) == (weights is None):
    raise InputError("give either --workdir or --weights: what to load")
  if workdir is not None:
    of_run = load(workdir)  # in any case: it says so where this is no workdir
    return of_run if config is None else config
  if config is None:
    raise InputError("--weights needs --config: it says which network they are of and which data")
  return config


def load(workdir):
  """The config of the run in a workdir."""
  path = pathlib.Path(workdir) / "config.json"
  if not path.is_file():
    raise InputError(f"{workdir} is not a workdir of train.py: it has no config.json")
  try:
    config = base()
    config.update(json.loads(path.read_text()))
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f"{path} is not a config of this version: {error}") from error
  return config


def _expect(config, *expectations):
  """Raises InputError for the first (key, whether it fits, what was expected) that does not fit."""
  flat = _flatten(config)
  for key, fits, expected in expectations:
    if not fits:
      raise InputError(f"{key} {flat[key]!r} is not valid: expected {expected}")


def _divides_a_batch(config):
  share = config.batch_size // jax.device_count()
  fits = config.accumulate >= 1 and share % config.accumulate == 0
  return fits, f"a divisor of {share}, a device's share of batch_size"


def _pairs(config):
  share = config.batch_size // jax.device_count()
  fits = share % 2 == 0 or not (config.mix.mixup or config.mix.cutmix)
  return fits, "an even number for each device, as mixup and cutmix take pairs of images"


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


def _flatten(config, prefix=""):
  flat = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      flat |= _flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = tuple(value) if isinstance(value, list) else value
  return flat
