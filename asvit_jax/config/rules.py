"""Checks of a config before any file is opened.

`ranges` has the range of each key. This module adds the conditions between keys, and between keys
and devices.
"""

import importlib.util
import json
import re
import subprocess
import sys

import jax
from ml_collections import ConfigDict

from asvit_jax import vit
from asvit_jax.config import ranges
from asvit_jax.config.defaults import base
from asvit_jax.config.keys import flatten
from asvit_jax.config.model import Model, architecture, preprocessing, trained_architecture
from asvit_jax.core import leaves, sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.losses import class_weights
from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES
from asvit_jax.vit.stems import STEMS

# The keys that an evaluation reads; keys for training only may be meant for another machine.
_EVALUATED = ("model.", "data.", "eval.batch_size", "budget", "init_resize")

# Sections to which users may add keys: for their sources, for parts' arguments, for loss terms.
_OF_USERS = ("data.", "loss.", "optimizer.arguments.", "criterion.arguments.")

_MOST_PARAMETERS = 2**35  # every device holds all of them: 128 GiB in float32
_FREEZE_SECONDS = 10


def check_evaluation(config):
  """Raises InputError for the first invalid value among those that an evaluation reads."""
  _check_keys(config)
  _check_ranges(config, _EVALUATED)
  arch = architecture(Model.of(config.model))
  _check_parts(arch)
  _check_size(arch)
  preprocessing(config.data)
  _expect(config, ("eval.batch_size", *_divides_over_devices(config.eval.batch_size)))


def check(config):
  """Raises InputError for the first invalid value of a config for training."""
  check_evaluation(config)
  _check_ranges(config)
  arch = trained_architecture(config)
  _expect(
    config,
    ("batch_size", *_divides_over_devices(config.batch_size)),
    ("accumulate", *_divides_a_batch(config)),
    ("batch_size", *_pairs(config)),
    ("budget_range", *_holds_the_budget(config)),
    ("data.shift", *_stays_in_view(config)),
    (
      "thresholds",
      config.budget_range is None or config.thresholds == "calibrated",
      "calibrated, as there is a budget_range",
    ),
    ("optimizer.freeze", *_ends_soon(config.optimizer.freeze, arch)),
  )
  class_weights.check(config.criterion.class_weights, config.model.num_classes)
  if config.wandb and importlib.util.find_spec("wandb") is None:
    raise InputError(
      f"wandb {shown(config.wandb)} needs the wandb library: pip install wandb, or leave the key "
      "empty"
    )
  if config.budget is not None and not config.init_from:
    raise InputError(
      "init_from is empty: a pruned network starts from the dense one, which is also its teacher; "
      "give a .safetensors file or the workdir of a dense run"
    )
  if config.teacher_from and config.budget is None:
    raise InputError(
      "teacher_from without a budget: a dense network has no teacher; give a budget, or leave "
      "teacher_from empty"
    )
  if config.budget is not None and config.init_new_head:
    raise InputError(
      "init_new_head with a budget: the dense network is the teacher, and its new head would be "
      "untrained; train a dense network with the new head first and start from its workdir"
    )


def _check_keys(config):
  """Raises InputError for an object that is not a config, or lacks a key.

  None is allowed only for keys whose default is None.
  """
  if not isinstance(config, ConfigDict):
    raise InputError(
      f"the config is of type {type(config).__name__}: expected a changed copy of "
      "asvit_jax.config.base()"
    )
  given, known = flatten(config), flatten(base())
  for key, default in known.items():
    if key not in given:
      raise InputError(
        f"the config has no key {key}: start from asvit_jax.config.base(), which has them all"
      )
    if default is not None and given[key] is None:
      raise InputError(
        f"{key} None is not valid: expected a value, such as its default, {default!r}"
      )
  for key in given:
    if key not in known and not key.startswith(_OF_USERS):
      raise InputError(
        f"the config has a key {key}, which nothing reads: put keys of your own, for a source of "
        "your own, into config.data"
      )


def _check_ranges(config, of=("",)):
  """Checks the ranges of all keys that begin with one of `of`."""
  for key, value in flatten(config).items():
    allowed = ranges.of(key)
    if allowed is not None and key.startswith(of):
      allowed.check(key, value)


def _check_parts(arch):
  """Raises InputError if a part that an architecture names is missing, or is of another kind."""
  for table, name, needs in (
    (ATTENTIONS, arch.attention, ("dense", "masked", "prefix")),
    (SCORES, arch.score, ("uses_keys", "gather")),
    (REDUCTIONS, arch.reduction, ("uses_keys", "changes_tokens")),
    (STEMS, arch.stem, ("check",)),
  ):
    try:
      part = table[name]
      for attribute in needs:
        getattr(part, attribute)
      if table is STEMS:
        part.check(arch)
    except InputError:
      raise
    except Exception as error:  # importing a user's module may raise anything
      raise InputError(
        f"{table.key} {shown(name)} cannot be used as a {table.kind} "
        f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
      ) from error


def _check_size(arch):
  """Raises InputError for a network that is too large for any device."""
  block = arch.width * (4 * arch.width + (2 + arch.swiglu) * arch.hidden)
  count = arch.depth * block + arch.width * (arch.classes + arch.patches + 3 * arch.patch_size**2)
  if count > _MOST_PARAMETERS:
    raise InputError(
      f"model.width {arch.width:,}, model.depth {arch.depth:,}, model.num_classes {arch.classes:,} "
      f"and {arch.patches:,} patches make a network of {count:,} parameters: expected at most "
      f"{_MOST_PARAMETERS:,}, as every device holds all of them"
    )


def _expect(config, *expectations):
  """Raises InputError for the first (key, whether its value fits, expected) that does not fit."""
  flat = flatten(config)
  for key, fits, expected in expectations:
    if not fits:
      raise InputError(f"{key} {shown(flat[key])} is not valid: expected {expected}")


def _holds_the_budget(config):
  ends, budget = config.budget_range, config.budget
  if ends is not None and budget is None:
    return False, "a budget in it, at which evaluations run: set budget, too"
  expected = f"two increasing shares of the dense GMACs around budget, {budget}, or None"
  return ends is None or ends[0] <= budget <= ends[1], expected


def _stays_in_view(config):
  side = min(sizes.height_width(config.model.image_size))
  return config.data.shift < side, f"less than {side}, the pixels of the images' shorter side"


def _divides_a_batch(config):
  share = config.batch_size // jax.device_count()
  return share % config.accumulate == 0, f"a divisor of {share}, a device's share of batch_size"


def _pairs(config):
  share = config.batch_size // jax.device_count()
  in_pairs = config.mix.mode == "pairs" and (config.mix.mixup or config.mix.cutmix)
  fits = share % 2 == 0 or not in_pairs
  return fits, (
    "an even number for each device, as mixup and cutmix take pairs of images by mix.mode='pairs'"
  )


def _ends_soon(pattern, arch):
  """Whether searching the parameters' names for a pattern ends within `_FREEZE_SECONDS`.

  Backtracking makes some patterns take years. Python's `re` cannot be interrupted, so a process
  that can be killed tries it.
  """
  expected = f"a pattern that is searched for in less than {_FREEZE_SECONDS} s: simplify it"
  if not re.search(r"[*+{]", pattern):  # nothing repeats
    return True, expected
  names = [name for name, _ in leaves.named(vit.specs(arch))]
  script = "import json, re, sys; p, n = json.load(sys.stdin); [re.search(p, i) for i in n]"
  try:
    subprocess.run(
      [sys.executable, "-I", "-S", "-c", script],
      input=json.dumps([pattern, names]).encode(),
      capture_output=True,
      timeout=_FREEZE_SECONDS,
      check=False,
    )
  except subprocess.TimeoutExpired:
    return False, expected
  return True, expected


def _divides_over_devices(batch_size):
  devices = jax.device_count()
  return batch_size % devices == 0, f"a multiple of {devices}, the number of devices"
