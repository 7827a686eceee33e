"""The identity of a run: its config, its network, its images and its teacher.

The workdir keeps them as `config.json`, `network.json` and `inputs.json`. A run is resumed only
with the same ones. `plan.json` repeats the values of `config.json`, which shows whether somebody
has edited it.
"""

import dataclasses
import json
from typing import Any

from asvit_jax.config import base
from asvit_jax.config import parts as config_parts
from asvit_jax.config.keys import flatten
from asvit_jax.core import hosts, schema, sizes, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.plain import plain
from asvit_jax.core.printable import on_a_line
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.optimizers.schedule import Schedule, total_steps
from asvit_jax.run import inputs as inputs_lib
from asvit_jax.run import layout
from asvit_jax.vit import description as descriptions

# Keys that may change when a run is resumed; all others belong to the run.
_FREE = (
  "data.dir",
  "data.classes",
  "data.train_labels",
  "data.eval_labels",
  "data.exif_orientation",  # runs of older versions had no such key, and ignored EXIF
  "data.cache",
  "data.workers",
  "data.check_images",
  "data.max_bad_images",
  "eval.batch_size",
  "eval.every",
  "eval.patience",
  "eval.pictures",
  "budget_tolerance",
  "log_every",
  "wandb",
  "checkpoint_every",
  "parallel",
)

# Keys that may change if the run does not become shorter.
_LENGTH = ("epochs", "total_steps", "optimizer.decay_steps")

# Values for runs of older versions, which lack these keys and behaved unlike today's default.
_BEFORE = {"ema_warmup": False}

# Sections to which users may add keys.
_OF_USERS = ("data.", "loss.", "optimizer.arguments.", "criterion.arguments.")

# Schemas of the files in a workdir. The types of a config's keys are checked by `base`.
_NUMBER = schema.either(schema.NULL, schema.BOOLEAN, schema.number())
_TEXT = schema.text(1 << 20)
_VALUE = schema.either(
  _NUMBER, _TEXT, schema.array(schema.either(schema.number(), _TEXT), most=1000)
)
_SECTIONS = [key for key, value in base().items() if hasattr(value, "items")]
# A key of a section may hold keyword arguments: those of the optimizer and of the criterion.
_KEY = schema.either(_VALUE, schema.table(others=_VALUE))
_CONFIG = schema.table(dict.fromkeys(_SECTIONS, schema.table(others=_KEY)), others=_VALUE)
_SIDE = schema.integer(most=2**63)
_PLAN = schema.table(
  {"model": schema.table({"image_size": schema.either(_SIDE, schema.array(_SIDE, 2, 2))})}
)
_MOST_BYTES = {"network.json": descriptions.MOST_BYTES, "plan.json": 2**28}  # class weights
_ADVICE = "it was edited after the run wrote it"
_READERS = {
  "config.json": lambda content, what: schema.loads(content, _CONFIG, what, _ADVICE),
  "network.json": descriptions.loads,
  "plan.json": lambda content, what: schema.loads(
    content, _PLAN, what, most_bytes=_MOST_BYTES["plan.json"]
  ),
}


@dataclasses.dataclass(frozen=True)
class Before:
  """The run that a workdir holds, as it was written last, before a plan begins or resumes it.

  Attributes:
    config: its config; None if the workdir holds no run.
    images: number of its training images; None if unknown, as for runs of older versions.
    moved: the keys of `inputs.PLACES` that the plan changes; `inputs.check` then checks that they
      lead to the same weights.
  """

  config: Any = None
  images: int | None = None
  moved: tuple[str, ...] = ()


def save(plan, workdir, description=None):
  """Writes the config of a plan, and a network's description, into a workdir.

  Args:
    plan: a `Plan`.
    workdir: directory of the run.
    description: `Network.describe()`, or None.

  Raises:
    InputError: the workdir holds a run with another config, it cannot be written, or the
      description could not be read back.
  """
  check_config(plan, workdir)
  texts = {"config.json": _json(plan.given)}
  # A config or a description that cannot be read back would make the run impossible to resume.
  what = f"what would be the config.json of {workdir}"
  schema.loads(texts["config.json"], _CONFIG, what, descriptions.UNREADABLE)
  if description is not None:
    texts["network.json"] = _json(description)
    what = f"what would be the network.json of {workdir}"
    descriptions.loads(texts["network.json"], what, descriptions.UNREADABLE)
  for name, text in texts.items():
    storage.write(storage.path(workdir) / name, text, f"the run's {name}")


def save_run(plan, description, inputs, workdir):
  """Writes the identity of a run before its first step; only the first host writes.

  Args:
    plan: a `Plan`, complete, which is written to `plan.json`.
    description: `Network.describe()`.
    inputs: result of `run.inputs.describe`.
    workdir: directory of the run.

  Raises:
    InputError: as `save`.
  """
  if not hosts.is_first():
    return
  save(plan, workdir, description)
  inputs_lib.save(inputs, workdir)
  storage.write(storage.path(workdir) / "plan.json", _json(plan.to_json()), "the run's plan.json")


def check_config(plan, workdir):
  """Raises InputError if a workdir holds a run with another config, or cannot be written.

  The config of a run is the one that it wrote: edits of its config.json are changes, too.

  Returns:
    The `Before` of the workdir.
  """
  if storage.in_bucket(workdir) and not str(workdir).startswith("gs://"):
    raise InputError(
      f"workdir {workdir}: Orbax writes checkpoints only to disks and to gs://: give one of these, "
      "or mount the store as a disk"
    )
  before = _check_same(plan, workdir) if layout.is_run(workdir) else Before()
  layout.check(workdir)
  return before


def _check_same(plan, workdir):
  """Checks a plan against the run that a workdir holds; returns its `Before`."""
  found = load(workdir, config_parts.own(plan.given))
  edited, now = _comparable(flatten(found)), _comparable(flatten(plan.given))
  before = _comparable(_as_written(flatten(found), workdir))
  changed = [k for k in {**now, **before} if now.get(k) != before.get(k) and k not in _FREE]
  # Runs of older versions have no inputs.json, so their number of steps is unknown.
  inputs = inputs_lib.read(workdir)
  length = () if inputs is None else _LENGTH
  moved = [k for k in changed if k in inputs_lib.PLACES]
  if moved and not inputs_lib.know_weights(plan.budget, workdir, inputs):
    moved = []
  others = [k for k in changed if k not in (*length, *moved)]
  if others:
    listed = "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in others)
    if all(now.get(k) == edited.get(k) for k in others):
      raise InputError(
        f"{storage.path(workdir) / 'config.json'} was edited after the run wrote it ({listed}): "
        "restore the values that were, which plan.json has, or give the new ones with another "
        "--workdir"
      )
    raise InputError(
      f"{workdir} holds a run of another config ({listed}): use another --workdir; to start "
      f"there from the weights of this run, add --config.init_from={workdir}"
    )
  found.update_from_flattened_dict({k: before[k] for k in _LENGTH})  # others may not differ
  images = None if inputs is None else inputs["images"]
  if len(changed) > len(moved):
    _check_no_shorter(plan, found, images, workdir)
  if inputs is not None:
    places = {"init_from": plan.init_from, "teacher_from": plan.teacher_from}
    inputs_lib.check_places(places, workdir)
  return Before(found, images, tuple(moved))


def _as_written(flat, workdir):
  """{dotted key: value} of a run's config: those of its plan.json, else those of its config.json.

  Args:
    flat: {dotted key: value} of its config.json.
    workdir: directory of the run.
  """
  plan = _read(workdir, "plan.json")
  if plan is None:  # a run of an older version, or one that was killed before its first step
    return flat
  saved = {k.replace("data.others.", "data."): v for k, v in flatten(plan).items()}
  known = flatten(base())
  users = {k: v for k, v in saved.items() if k not in known and k.startswith(_OF_USERS)}
  return {k: saved.get(k, v) for k, v in flat.items() if k in known} | users


def _check_no_shorter(plan, found, images, workdir):
  """Raises InputError if a plan would make the run in a workdir shorter."""
  before, now = total_steps(found, images), total_steps(plan, images)
  if now < before:
    raise InputError(
      f"the run in {workdir} has {before:,} steps, and this config would make it {now:,}: a run "
      f"may become longer, not shorter; give at least --config.total_steps={before}"
    )


def describe_extension(plan, before):
  """One line about how a plan extends a run; None if it does not.

  Args:
    plan: a `Plan`.
    before: result of `check_config`.
  """
  if before.images is None:
    return None
  was, now = (total_steps(c, before.images) for c in (before.config, plan))
  if was == now:
    return None
  rates = [Schedule.of(before.config, was)(was), Schedule.of(plan, now)(was)]
  old, new = (f"{float(rate):.3g}" for rate in rates)
  return (
    f"extended from {was:,} to {now:,} steps: the learning rate of step {was:,} was {old}, and is "
    f"{new} by the new schedule (--config.optimizer.decay_steps={was} keeps the old schedule, and "
    f"then stays at {old})"
  )


def as_begun(plan, workdir):
  """A plan, adapted to the run in its workdir if an older version began that run.

  Keys that the older version did not have get the value by which the run behaved then. All other
  keys are checked by `check_config`.
  """
  if not layout.is_run(workdir):
    return plan
  before = _read(workdir, "config.json")
  later = {k: v for k, v in _BEFORE.items() if k not in before and plan.given[k] != v}
  if later:
    plan = dataclasses.replace(plan, given={**plan.given, **later}, **later)
    listed = ", ".join(f"{k}={v}" for k, v in later.items())
    hosts.log_first(
      f"{workdir} holds a run of an older version, which resumes as it began, with {listed}"
    )
  return plan


def load(workdir, parts=(), needed=config_parts.TRAINING):
  """The config of the run in a workdir.

  Args:
    workdir: directory of the run.
    parts: names of users' own parts that the user typed, see `core.parts.typed`. The run may name
      these, and the parts of this package.
    needed: keys whose parts will run, of `config.parts`. Other keys that name users' own parts have
      their defaults in the result.

  Raises:
    InputError: there is no run; its config is damaged, or of another version; or it names code
      outside of this package that the user did not type.
  """
  path = storage.path(workdir) / "config.json"
  if not path.is_file():
    layout.check_config_is_there(workdir)
    raise InputError(f"{workdir} is not a workdir of train.py: it has no config.json")
  try:
    config, content = base(), _loads(path)
    with config.data.unlocked():  # keys that a source of the user's own reads
      config.data.update({k: v for k, v in content.get("data", {}).items() if k not in config.data})
    config.update(_BEFORE | content)
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    said = on_a_line(" ".join(str(error).split()))[:500]
    raise InputError(f"{path} is not a config of this version: {said}") from error
  config_parts.check(config, path, parts, needed, base())
  return config


def load_description(workdir):
  """The description of the network in a workdir; {} for a run of an older version without one."""
  return _read(workdir, "network.json") or {}


def check_network(description, workdir):
  """Raises InputError if the run in a workdir has another network than `description`.

  Its classes may have other names, but not the same names in another order.
  """
  before = load_description(workdir)
  for part in ("architecture", "preprocessing"):
    if part in before and before[part] != description[part]:
      was, now = before[part], description[part]
      changed = sorted(k for k in was.keys() | now.keys() if was.get(k) != now.get(k))
      listed = "; ".join(f"{k} was {was.get(k)!r}, is {now.get(k)!r}" for k in changed)
      raise InputError(
        f"{workdir} holds a run of another network ({listed}): use another --workdir"
      )

  was, now = before.get("classes") or [], description["classes"] or []
  if was != now and sorted(was) == sorted(now):
    raise InputError(
      f"{workdir} holds a run whose classes had another order (label {_first_other(was, now)}): "
      f"give --config.data.classes={storage.path(workdir) / 'network.json'}, which has it"
    )


def _first_other(was, now):
  label = next(label for label in range(len(was)) if was[label] != now[label])
  return f"{label} was {was[label]!r}, is {now[label]!r}"


def _comparable(flat):
  """{dotted key: value} in a form in which configs can be compared.

  An image size has several forms; and older versions always set `data.crop_ratio`, which now may be
  None for the default.
  """
  flat = flat | {"model.image_size": sizes.plain(flat["model.image_size"])}
  if flat["data.crop_ratio"] is None:
    return flat | {"data.crop_ratio": Preprocessing().crop_ratio}
  return flat


def _read(workdir, name):
  path = storage.path(workdir) / name
  if not path.exists():
    return None
  try:
    return _loads(path)
  except (OSError, ValueError) as error:
    raise InputError(f"{path} is damaged ({error}): bring back a copy") from error


def _loads(path):
  content = storage.read(path, _MOST_BYTES.get(path.name, schema.MOST_BYTES))
  return _READERS[path.name](content, "its content")


def _json(content):
  return json.dumps(content, indent=2, default=plain) + "\n"  # a config may have NumPy's numbers
