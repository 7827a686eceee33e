"""What makes a run the same run: its config, its network, its images and its teacher.

They stand in the workdir as `config.json`, `network.json` and `inputs.json`, and a run goes on with
these and no others.
"""

import json

from asvit_jax.config import base
from asvit_jax.config.keys import flatten
from asvit_jax.core import leaves, sizes, storage
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing

# May change from one call of train.py to the next; everything else belongs to the run.
_FREE = (
  "data.dir",
  "data.classes",
  "data.train_labels",
  "data.eval_labels",
  "data.exif_orientation",  # which runs from before it was there had off
  "data.cache",
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

# May also differ from host to host: where each finds what is the same for all.
_OF_A_HOST = (
  *("data.dir", "data.classes", "data.train_labels", "data.eval_labels", "data.cache"),
  *("data.workers", "init_from", "teacher_from"),
)


def save(config, workdir, description=None):
  """Writes a config, and a network's description, into a workdir.

  Args:
    config: see `config.base`.
    workdir: where to.
    description: `Network.describe()`, or None.

  Raises:
    InputError: a run of another config is there, or nothing can be written.
  """
  check_config(config, workdir)
  _write(workdir, "config.json", config.to_dict())
  if description is not None:
    _write(workdir, "network.json", description)


def check_config(config, workdir):
  """Raises InputError where a run of another config is there, or nothing could be written."""
  if storage.in_bucket(workdir) and not str(workdir).startswith("gs://"):
    raise InputError(
      f"workdir {workdir}: Orbax writes checkpoints to disks and to gs:// only: give one of those, "
      "or mount the store as a disk"
    )
  if (storage.path(workdir) / "config.json").exists():
    before, now = (_with_defaults(flatten(c)) for c in (load(workdir), config))
    changed = [k for k in now if now[k] != before[k] and k not in _FREE]
    if changed:
      listed = "; ".join(f"{k} was {before[k]!r}, is {now[k]!r}" for k in changed)
      raise InputError(f"{workdir} holds a run of another config ({listed}): use another --workdir")
  storage.check_writable(workdir, "workdir")


def of_all_hosts(config):
  """{dotted key: value} of a config, of those that every host must have alike."""
  return {f"config.{k}": v for k, v in flatten(config).items() if k not in _OF_A_HOST}


def load(workdir):
  """The config of the run in a workdir; raises InputError where there is none."""
  path = storage.path(workdir) / "config.json"
  if not path.is_file():
    raise InputError(f"{workdir} is not a workdir of train.py: it has no config.json")
  try:
    config = base()
    config.update(json.loads(storage.read(path)))
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f"{path} is not a config of this version: {error}") from error
  return config


def load_description(workdir):
  """The description of the network in a workdir, {} of a run that has none, from before."""
  return _read(workdir, "network.json") or {}


def describe_inputs(source, teacher_params):
  """The number of images, on which the schedule and every shuffle rest, and the teacher.

  Args:
    source: images to train on.
    teacher_params: of the dense network; empty without one.
  """
  return {"images": len(source), "teacher": leaves.fingerprint(teacher_params)}


def check_inputs(inputs, workdir):
  """Raises InputError where the run in a workdir began with others than `describe_inputs` says."""
  before = _read(workdir, "inputs.json")
  if before is None:
    return
  if before["images"] != inputs["images"]:
    raise InputError(
      f"the run in {workdir} began with {before['images']:,} images to train on, now there are "
      f"{inputs['images']:,}: bring the data back, or use another --workdir"
    )
  if before["teacher"] != inputs["teacher"]:
    raise InputError(
      f"the run in {workdir} began with another teacher than what config.init_from now leads to: "
      "bring its weights back, or use another --workdir"
    )


def save_inputs(inputs, workdir):
  """Writes them beside the config."""
  _write(workdir, "inputs.json", inputs)


def check_network(description, workdir):
  """Raises InputError where the run in a workdir is of another network than `description` says.

  Its classes may have other names, but not the same in another order.
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


def _with_defaults(flat):
  """Runs from before had `data.crop_ratio` set, at what is the default where it is left open.

  And a size has several forms.
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
    return json.loads(storage.read(path))
  except ValueError as error:
    raise InputError(f"{path} is damaged ({error}): bring back a copy") from error


def _write(workdir, name, content):
  storage.write(
    storage.path(workdir) / name, json.dumps(content, indent=2) + "\n", f"the run's {name}"
  )
