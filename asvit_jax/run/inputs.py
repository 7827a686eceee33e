"""The inputs of a run besides its config: its images, its initial weights and its teacher.

The workdir keeps them in `inputs.json`. Weights are identified by their checksums, so a run can be
resumed after their files have moved.
"""

import json

from asvit_jax.core import leaves, schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.run import layout

# Keys that locate weights. They may change as long as they lead to the same weights.
PLACES = ("init_from", "init_key", "init_step", "init_weights_of", "teacher_from")

_CHECKSUM = schema.integer(0, 2**32 - 1)
_SCHEMA = schema.table(
  {
    "images": schema.integer(0, 2**63),
    "teacher": _CHECKSUM,
    "first": _CHECKSUM,  # of the initial weights; runs of older versions have none
    "class_weights": schema.either(schema.NULL, schema.array(schema.number(), most=2**24)),
  },
  required=("images", "teacher"),
)


def describe(source, teacher_params, class_weights=None, first_params=None):
  """The number of images, which determines schedule and shuffling, and checksums of the weights.

  Args:
    source: images to train on.
    teacher_params: parameters of the dense teacher; () without a teacher.
    class_weights: weight of each class in the loss, or None.
    first_params: initial parameters of the run; None leaves them out.

  Returns:
    Dictionary for JSON: `images`, `teacher`, and if given `first` and `class_weights`.
  """
  inputs = {"images": len(source), "teacher": leaves.fingerprint(teacher_params)}
  inputs |= {} if first_params is None else {"first": leaves.fingerprint(first_params)}
  return inputs | ({} if class_weights is None else {"class_weights": list(class_weights)})


def read(workdir):
  """The inputs that `save` wrote; None for a run without them.

  Raises:
    InputError: the file is damaged.
  """
  path = storage.path(workdir) / "inputs.json"
  if not path.exists():
    return None
  try:
    return schema.loads(storage.read(path, 2**28), _SCHEMA, "its content", most_bytes=2**28)
  except (OSError, InputError) as error:
    raise InputError(f"{path} is damaged ({error}): restore a copy") from error


def save(inputs, workdir):
  """Writes the result of `describe`; a resumed run keeps the checksum of its initial weights."""
  before = read(workdir)
  if before is not None and layout.has_checkpoint(workdir):
    inputs = {k: v for k, v in inputs.items() if k != "first"}
    inputs |= {k: v for k, v in before.items() if k == "first"}
  text = json.dumps(inputs, indent=2) + "\n"
  storage.write(storage.path(workdir) / "inputs.json", text, "the run's inputs.json")


def know_weights(budget, workdir, before):
  """Whether weights at another place can be compared with those that the run began with.

  Args:
    budget: budget of the run; None for a dense network.
    workdir: directory of the run.
    before: result of `read` for it.
  """
  if before is None:
    return False
  # Without a checksum of the initial weights, there must be a checkpoint, so that they are not
  # needed any more, and a teacher, whose checksum is known.
  return "first" in before or (budget is not None and layout.has_checkpoint(workdir))


def check_places(places, workdir):
  """Raises InputError if the weights that a run began with are missing.

  Args:
    places: {"init_from": place, "teacher_from": place}.
    workdir: directory of the run.
  """
  for key, place in places.items():
    if not place or place.startswith("hf:") or storage.in_bucket(place):
      continue
    if not storage.path(place).exists():
      raise InputError(
        f"{key} {place}, from which the run in {workdir} began, is missing: restore it, or give "
        f"--config.{key}=PLACE, where the same weights are now (their checksum is compared)"
      )


def check(inputs, workdir, moved=()):
  """Raises InputError if the run in a workdir began with other inputs.

  Args:
    inputs: result of `describe`.
    workdir: directory of the run.
    moved: keys of `PLACES` whose values differ from those of the run.
  """
  before = read(workdir)
  if before is None:
    return
  if before["images"] != inputs["images"]:
    raise InputError(
      f"the run in {workdir} began with {before['images']:,} images to train on, now there are "
      f"{inputs['images']:,}: restore the data, or use another --workdir"
    )
  if before["teacher"] != inputs["teacher"]:
    raise InputError(
      f"the run in {workdir} began with another teacher than the one at config.init_from or "
      "config.teacher_from now: restore its weights, or use another --workdir"
    )
  if moved and before.get("first", inputs.get("first")) != inputs.get("first"):
    raise InputError(
      f"the run in {workdir} began with other weights than those at {', '.join(moved)} now (their "
      "checksums differ): give the place of the same weights, or use another --workdir"
    )
  if before.get("class_weights") != inputs.get("class_weights"):
    raise InputError(
      f"the run in {workdir} began with other class weights than criterion.class_weights gives "
      "now: restore its file or its images, or use another --workdir"
    )
