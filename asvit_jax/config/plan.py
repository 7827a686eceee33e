"""The plan of a run: every value of its config, checked once, with a name and a type.

    config ── resolve ──► Plan ── training.opening ──► the same Plan, complete ──► the steps

People write a config (`config.defaults`): its keys may be left open, and some texts stand for
several values. Programs read a `Plan`. `resolve` checks the config and makes the plan; functions
below it take a plan, not a config. The number of steps and the final architecture depend on the
data and the weights: `Plan.of_images` and `Plan.of_network` fill them in, and complete the plan,
once these are open.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from asvit_jax.config import rules
from asvit_jax.config.model import Model, architecture, preprocessing
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.plain import plain
from asvit_jax.core.printable import shown
from asvit_jax.data.mixing import Mixing
from asvit_jax.data.options import Data
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.losses import criteria
from asvit_jax.optimizers import building
from asvit_jax.optimizers.schedule import Schedule, total_steps
from asvit_jax.sparsity.complexity import target_gmacs
from asvit_jax.vit import Architecture

# Keys that may differ between hosts: where each finds the same data and weights.
_OF_A_HOST = (
  *("data.dir", "data.classes", "data.train_labels", "data.eval_labels", "data.cache"),
  *("data.workers", "init_from", "teacher_from"),
)


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """The section `optimizer` of a config; see `optimizers.building.create`.

  Attributes:
    name: of `optimizers.building.OPTIMIZERS`, of optax, or `package.module:object`.
    arguments: keyword arguments besides the learning rate.
    lr: peak learning rate, for a batch of 512.
    end_lr: final learning rate, for a batch of 512.
    warmup: share of the decay's steps over which the learning rate rises.
    decay_steps: steps until `end_lr`; None for all steps of the run.
    weight_decay: share of a kernel, times the learning rate, that a step subtracts.
    clip_norm: largest global norm of the gradient; 0 for no clipping.
    thresholds_lr: learning rate of the thresholds ÷ that of the rest.
    layer_decay: factor of the learning rate for each layer away from the head.
    freeze: regular expression of frozen parameters; "" for none.
  """

  name: str
  arguments: Mapping[str, Any]
  lr: float
  end_lr: float
  warmup: float
  decay_steps: int | None
  weight_decay: float
  clip_norm: float
  thresholds_lr: float
  layer_decay: float
  freeze: str


@dataclasses.dataclass(frozen=True)
class Criterion:
  """The section `criterion` of a config, the classification loss; see `losses.criteria`.

  Attributes:
    name: of `CRITERIA`, or `package.module:object`.
    arguments: keyword arguments of the criterion.
    class_weights: "", "balanced", comma-separated numbers, or a file of numbers.
  """

  name: str
  arguments: Mapping[str, Any]
  class_weights: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The section `eval` of a config: when and how a run is evaluated.

  Attributes:
    batch_size: images per batch, over all devices of all hosts.
    every: steps between two evaluations.
    patience: evaluations without improvement before the run ends; 0 for never.
    pictures: number of images whose kept tokens an evaluation draws.
  """

  batch_size: int
  every: int
  patience: int
  pictures: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run, or an evaluation, with every value resolved.

  Fields that are keys of the config have the key's name; `config.defaults` describes them. The
  fields from `arch` to `class_weights` are derived from several keys, the data and the weights.

  Attributes:
    given: the config as a nested dictionary, as in `config.json`.
    arch: `Architecture` to train or to evaluate, including the stages that it could prune at. Until
      the plan is complete, it follows from the config and its variant alone, without the weights.
    preprocessing: `Preprocessing`, likewise.
    steps: number of training steps; None until the training images are counted.
    schedule: `Schedule` of the learning rate; None until the training images are counted.
    target_gmacs: GMACs per image that the budget allows, in the paper's count; None for a dense
      network.
    class_weights: weight of each class in the loss; None for equal weights.
  """

  given: Mapping[str, Any] = dataclasses.field(repr=False)
  seed: int
  init_from: str
  init_key: str
  init_step: str
  init_weights_of: str
  init_resize: bool
  init_new_head: bool
  teacher_from: str
  budget: float | None
  budget_range: tuple[float, float] | None
  budget_tolerance: float
  thresholds: str
  temperature: float
  model: Model
  data: Data
  mix: Mixing
  batch_size: int
  accumulate: int
  parallel: str
  max_skipped_steps: int
  epochs: float
  total_steps: int | None
  label_smoothing: float
  ema_decay: float
  ema_warmup: bool
  optimizer: Optimizer
  criterion: Criterion
  loss: Mapping[str, float]
  eval: Evaluation
  wandb: str
  log_every: int
  checkpoint_every: int
  arch: Architecture
  preprocessing: Preprocessing
  steps: int | None = None
  schedule: Schedule | None = None
  target_gmacs: float | None = None
  class_weights: tuple[float, ...] | None = None

  @property
  def prunes(self):
    """Whether the run trains thresholds towards a budget."""
    return self.budget is not None

  def replace(self, **changes):
    """A copy with other values, by field or by dotted key: `**{"eval.batch_size": 8}`.

    Raises:
      InputError: an unknown key.
    """
    fields, sections = {}, {}
    known = self._keys()
    for key, value in changes.items():
      if key not in known:
        raise InputError(f"a plan has no value {shown(key)}{hint(key, known)}")
      section, _, field = key.rpartition(".")
      (sections.setdefault(section, {}) if section else fields)[field] = value
    for section, of in sections.items():
      before = fields.get(section, getattr(self, section))
      if isinstance(before, Mapping):
        fields[section] = {**before, **of}
      else:
        fields[section] = dataclasses.replace(before, **of)
    return dataclasses.replace(self, **fields)

  def _keys(self):
    """The names of all values: of the fields, and `section.field` of those in sections."""
    keys = []
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      inner = vars(value) if dataclasses.is_dataclass(value) else value
      keys += [field.name]
      if isinstance(inner, Mapping) and field.name != "given":
        keys += [f"{field.name}.{name}" for name in inner]
    return keys

  def of_images(self, count):
    """A copy with `steps` and `schedule` for a number of training images.

    Raises:
      InputError: the number of steps exceeds int32.
    """
    return self._of_steps(total_steps(self, count))

  def _of_steps(self, steps):
    return dataclasses.replace(self, steps=steps, schedule=Schedule.of(self, steps))

  def of_network(self, arch, preprocessing, class_weights=None):
    """A copy with the architecture and preprocessing of the network that was loaded or created.

    Args:
      arch: its `Architecture`.
      preprocessing: its `Preprocessing`.
      class_weights: weight of each class in the loss, or None.
    """
    return dataclasses.replace(
      self,
      arch=arch,
      preprocessing=preprocessing,
      target_gmacs=target_gmacs(arch, self.budget),
      class_weights=class_weights,
    )

  def of_all_hosts(self):
    """{"config.KEY": value} of the values that must be the same on every host."""
    return {f"config.{k}": v for k, v in _leaves(self.to_json()) if k not in _OF_A_HOST}

  def to_json(self):
    """A nested dictionary of JSON's types: all fields except `given`, in order."""
    values = {k: v for k, v in vars(self).items() if k != "given"}
    values |= {"arch": self.arch.to_json(), "preprocessing": self.preprocessing.to_json()}
    for name, value in values.items():
      if dataclasses.is_dataclass(value):
        values[name] = dataclasses.asdict(value)
    del values["model"]["given"]  # `arch` has it
    return json.loads(json.dumps(values, default=plain))

  def describe(self):
    """The plan as lines of text, one per value: `optimizer.lr 0.012`."""
    return "\n".join(f"{key} {json.dumps(value)}" for key, value in _leaves(self.to_json()))


def resolve(config, trains=True):
  """Checks a config, once, and returns its `Plan`.

  Args:
    config: see `config.base`.
    trains: whether the plan is for training. If not, only the keys that an evaluation reads are
      checked, as the others may be meant for another machine.

  Raises:
    InputError: an invalid value, or values that contradict each other.
  """
  if not trains:
    rules.check_evaluation(config)
    return unchecked(config)
  rules.check(config)
  plan = unchecked(config)
  criteria.check(plan.criterion)
  building.check(plan.optimizer)
  return plan


def unchecked(config):
  """The `Plan` of a config without checks, such as the config of an existing run."""
  model = Model.of(config.model)
  arch = architecture(model)
  sections = {
    "model": model,
    "data": _section(Data, config.data),
    "mix": Mixing(**config.mix),
    "optimizer": _section(Optimizer, config.optimizer),
    "criterion": _section(Criterion, config.criterion),
    "eval": _section(Evaluation, config.eval),
    "loss": dict(config.loss),
  }
  fields = {field.name for field in dataclasses.fields(Plan)}
  values = {k: _frozen(v) for k, v in config.items() if k in fields} | sections
  plan = Plan(config.to_dict(), **values, arch=arch, preprocessing=preprocessing(config.data))
  if config.budget is not None:
    plan = plan.of_network(arch, plan.preprocessing)
  if config.total_steps is not None:  # else the number of steps depends on the images
    plan = plan._of_steps(config.total_steps)
  return plan


def _section(cls, section):
  """Converts a section of a config to its dataclass."""
  names = [field.name for field in dataclasses.fields(cls)]
  values = {name: _frozen(section[name]) for name in names if name != "others"}
  if "others" in names:
    values["others"] = {k: _own(k, v) for k, v in section.items() if k not in names}
  if "arguments" in values:
    arguments = values["arguments"].to_dict()
    values["arguments"] = {k: _frozen(v) for k, v in arguments.items()}
  return cls(**values)


def _own(key, value):
  """The value of a key that the user added to `config.data`.

  Raises:
    InputError: JSON cannot hold it.
  """
  value = value.to_dict() if hasattr(value, "to_dict") else _frozen(value)
  try:
    json.dumps(value, allow_nan=False)
  except (TypeError, ValueError) as error:
    raise InputError(
      f"data.{key} {shown(value)} cannot be kept in the run's config.json ({error}): expected a "
      "number, text, True, False, None, or a list or dictionary of these; give a path as text"
    ) from error
  return value


def _frozen(value):
  return tuple(value) if isinstance(value, list) else value


def _leaves(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _leaves(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
