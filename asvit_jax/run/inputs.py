"""What a run began with besides its config: its images, its first weights and its teacher.

They stand in the workdir as `inputs.json`. Weights are known by their checksums there, so a run
goes on where their files have been moved.
"""

import json

from asvit_jax.core import leaves, schema, storage
from asvit_jax.core.errors import InputError
from asvit_jax.run import layout

# The keys that say where weights are. They may change as long as they lead to the same.
PLACES = ("init_from", "init_key", "init_step", "init_weights_of", "teacher_from")

_CHECKSUM = schema.integer(0, 2**32 - 1)
_SCHEMA = schema.table(
  {
    "images": schema.integer(0, 2**63),
    "teacher": _CHECKSUM,
    "first": _CHECKSUM,  # of runs from before they had it, the first weights are not known
    "class_weights": schema.either(schema.NULL, schema.array(schema.number(), most=2**24)),
  },
  required=("images", "teacher"),
)


def describe(source, teacher_params, class_weights=None, first_params=None):
  """The number of images, on which the schedule and every shuffle rest, and checksums of weights.

  Args:
    source: images to train on.
    teacher_params: of the dense network; empty without one.
    class_weights: what each class counts for in the loss, or None.
    first_params: that the run starts from, or None where it does not matter.
  """
  inputs = {"images": len(source), "teacher": leaves.fingerprint(teacher_params)}
  inputs |= {} if first_params is None else {"first": leaves.fingerprint(first_params)}
  return inputs | ({} if class_weights is None else {"class_weights": list(class_weights)})


def read(workdir):
  """What `save` wrote; None of a run that has nothing of it yet.

  Raises:
    InputError: the file is damaged.
  """
  path = storage.path(workdir) / "inputs.json"
  if not path.exists():
    return None
  try:
    return schema.loads(storage.read(path, 2**28), _SCHEMA, "its content", most_bytes=2**28)
  except (OSError, InputError) as error:
    raise InputError(f"{path} is damaged ({error}): bring back a copy") from error


def save(inputs, workdir):
  """Writes what `describe` says; of a run that goes on, the first weights stay what they were."""
  before = read(workdir)
  if before is not None and layout.has_checkpoint(workdir):
    inputs = {k: v for k, v in inputs.items() if k != "first"}
    inputs |= {k: v for k, v in before.items() if k == "first"}
  text = json.dumps(inputs, indent=2) + "\n"
  storage.write(storage.path(workdir) / "inputs.json", text, "the run's inputs.json")


def know_weights(budget, workdir, before):
  """Whether it can be told if weights at another place are those that the run began with.

  Args:
    budget: of the run; None for a dense network.
    workdir: of the run.
    before: what `read` says of it.
  """
  if before is None:
    return False
  # Without their checksum the first weights must be done with; then only the teacher is needed.
  return "first" in before or (budget is not None and layout.has_checkpoint(workdir))


def check_places(places, workdir):
  """Raises InputError where weights that a run began with are not where they were.

  Args:
    places: {"init_from": place, "teacher_from": place}.
    workdir: directory of the run.
  """
  for key, place in places.items():
    if not place or place.startswith("hf:") or storage.in_bucket(place):
      continue
    if not storage.path(place).exists():
      raise InputError(
        f"{key} {place} is not there, from which the run in {workdir} began: bring it back, or "
        f"give --config.{key}=PLACE, where the same weights are now: they are known by a checksum"
      )


def check(inputs, workdir, moved=()):
  """Raises InputError where the run in a workdir began with others than `describe` says.

  Args:
    inputs: of `describe`.
    workdir: of the run.
    moved: keys of `PLACES` that are others than the run had.
  """
  before = read(workdir)
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
  if moved and before.get("first", inputs.get("first")) != inputs.get("first"):
    raise InputError(
      f"the run in {workdir} began with other weights than those that {', '.join(moved)} now "
      "leads to (they have another checksum): give the place of the same, or use another --workdir"
    )
  if before.get("class_weights") != inputs.get("class_weights"):
    raise InputError(
      f"the run in {workdir} began with other weights of classes than criterion.class_weights now "
      "leads to: bring its file or its images back, or use another --workdir"
    )
