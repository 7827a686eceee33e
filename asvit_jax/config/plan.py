"""One run, resolved: every value of its config, checked once, with a type and a name.

    config ── resolve ──► Plan ── training.opening ──► the same Plan, complete ──► the steps

A config (`config.defaults`) is what people write: keys that may be left open, text that stands for
several values. A `Plan` is what the program reads. `resolve` checks the config and makes the plan;
no module beyond it takes a config. What only the weights and the data say (the final architecture,
the number of steps) `Plan.complete` fills in once they are open.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from asvit_jax.config import rules
from asvit_jax.config.model import Model, architecture, preprocessing
from asvit_jax.core.plain import plain
from asvit_jax.data.mixing import Mixing
from asvit_jax.data.options import Data
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.losses import criteria
from asvit_jax.optimizers import building
from asvit_jax.optimizers.schedule import Schedule, total_steps
from asvit_jax.sparsity.complexity import target_gmacs
from asvit_jax.vit import Architecture

# May differ from host to host: where each finds what is the same for all.
_OF_A_HOST = (
  *("data.dir", "data.classes", "data.train_labels", "data.eval_labels", "data.cache"),
  *("data.workers", "init_from", "teacher_from"),
)


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """How gradients move the parameters; see `optimizers.building.create`.

  Attributes:
    name: of `optimizers.building.OPTIMIZERS`, of optax, or `package.module:object`.
    arguments: keyword arguments besides the learning rate.
    lr: peak of the learning rate, for a batch of 512.
    end_lr: its end, likewise.
    warmup: share of the decay's steps over which the learning rate rises.
    decay_steps: steps until `end_lr`; None for all of the run.
    weight_decay: of kernels.
    clip_norm: largest global norm of the gradient; 0 for none.
    thresholds_lr: the thresholds' learning rate ÷ that of the rest.
    layer_decay: factor of the learning rate for each layer further from the head.
    freeze: regular expression of the parameters that stay; "" for none.
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
  """What the classification term measures; see `losses.criteria`.

  Attributes:
    name: of `CRITERIA`, or `package.module:object`.
    arguments: its keyword arguments.
    class_weights: as in the config: "", "balanced", numbers, or a file of them.
  """

  name: str
  arguments: Mapping[str, Any]
  class_weights: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """When and how a run is evaluated.

  Attributes:
    batch_size: images, over all devices of all hosts.
    every: steps between two evaluations.
    patience: evaluations without a better one before the run ends; 0 for never.
    pictures: number of images whose kept tokens an evaluation draws.
  """

  batch_size: int
  every: int
  patience: int
  pictures: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run, or an evaluation, with every value resolved.

  A field that is a key of the config has the key's name; `config.defaults` describes them all. The
  fields from `arch` to `class_weights` are those that follow from several keys, and from the data
  and the weights.

  Attributes:
    given: the config, a nested dictionary, as `config.json` keeps it.
    arch: `Architecture` to train or to evaluate, with the stages that it could prune at. Until the
      plan is complete: as the config and its variant say, without the weights.
    preprocessing: `Preprocessing`, likewise.
    steps: number of training steps; None while it depends on images that are not counted yet.
    schedule: `Schedule` of the learning rate; None as `steps`.
    target_gmacs: GMACs of an image that the budget allows, as the paper counts; None for a dense
      network.
    class_weights: weight of each class in the loss; None for equal ones.
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
    """A copy with other values: of fields, or by dotted key, `**{"eval.batch_size": 8}`."""
    sections = {}
    for key in [key for key in changes if "." in key]:
      section, _, field = key.partition(".")
      sections.setdefault(section, {})[field] = changes.pop(key)
    for section, fields in sections.items():
      changes[section] = dataclasses.replace(getattr(self, section), **fields)
    return dataclasses.replace(self, **changes)

  def of_images(self, count):
    """A copy for so many training images: with `steps` and `schedule`.

    Raises:
      InputError: more steps than can be counted.
    """
    steps = total_steps(self, count)
    return dataclasses.replace(self, steps=steps, schedule=Schedule.of(self, steps))

  def of_network(self, arch, preprocessing, class_weights=None):
    """A copy for the network that the weights gave, which knows what the config left open."""
    return dataclasses.replace(
      self,
      arch=arch,
      preprocessing=preprocessing,
      target_gmacs=target_gmacs(arch, self.budget),
      class_weights=class_weights,
    )

  def of_all_hosts(self):
    """{"config.KEY": value} of the values that every host must have alike."""
    return {f"config.{k}": v for k, v in _leaves(self.to_json()) if k not in _OF_A_HOST}

  def to_json(self):
    """A nested dictionary of JSON's types: all fields but `given`, in their order."""
    values = {k: v for k, v in vars(self).items() if k != "given"}
    values |= {"arch": self.arch.to_json(), "preprocessing": self.preprocessing.to_json()}
    for name, value in values.items():
      if dataclasses.is_dataclass(value):
        values[name] = dataclasses.asdict(value)
    del values["model"]["given"]  # `arch` has it
    return json.loads(json.dumps(values, default=plain))

  def describe(self):
    """The plan as text, a line for each value: `optimizer.lr 0.012`."""
    return "\n".join(f"{key} {json.dumps(value)}" for key, value in _leaves(self.to_json()))


def resolve(config, trains=True):
  """The `Plan` of a config, whose values are checked here, once.

  Args:
    config: see `config.base`.
    trains: whether it is trained by. Otherwise only the keys that an evaluation reads are checked,
      as the others may be meant for another machine.

  Raises:
    InputError: a value that cannot work, alone or together with others.
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
  """As `resolve`, of a config that was checked before, as that of a run that is only read."""
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
  if config.total_steps is not None:
    plan = plan.of_images(0)
  return plan


def _section(cls, section):
  """A section of a config as its dataclass."""
  names = [field.name for field in dataclasses.fields(cls)]
  values = {name: _frozen(section[name]) for name in names if name != "others"}
  if "others" in names:
    values["others"] = {k: _frozen(v) for k, v in section.items() if k not in names}
  if "arguments" in values:
    values["arguments"] = {k: _frozen(v) for k, v in values["arguments"].items()}
  return cls(**values)


def _frozen(value):
  return tuple(value) if isinstance(value, list) else value


def _leaves(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _leaves(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
