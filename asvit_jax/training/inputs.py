"""What a run began with besides its config, so that it goes on with the same."""

import json
import pathlib

from asvit_jax import checkpoint
from asvit_jax.errors import InputError


def describe(source, teacher_params):
  """The number of images, on which the schedule and every shuffle rest, and the teacher.

  Args:
    source: images to train on.
    teacher_params: of the dense network; empty without one.
  """
  return {"images": len(source), "teacher": checkpoint.fingerprint(teacher_params)}


def check(inputs, workdir):
  """Raises InputError where the run in a workdir began with others."""
  path = _path(workdir)
  if not path.exists():
    return
  before = json.loads(path.read_text())
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


def save(inputs, workdir):
  """Writes them beside the config."""
  path = _path(workdir)
  partial = path.with_suffix(".partial")
  partial.write_text(json.dumps(inputs) + "\n")
  partial.replace(path)


def _path(workdir):
  return pathlib.Path(workdir) / "inputs.json"
