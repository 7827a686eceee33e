"""Logs scalars to Weights & Biases as well, if the wandb library is installed."""

import json
import uuid

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError

_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}
_FILE = "wandb.json"  # in the workdir: the id of the run at Weights & Biases


class Wandb:
  """Logs a run to a project; a resumed run logs to the same run there.

  After a kill a run repeats steps that it has already logged; Weights & Biases keeps the first.

  Args:
    workdir: directory of the run.
    project: name of the project.
    values: config of the run, a nested dictionary.

  Raises:
    InputError: wandb cannot start.
  """

  def __init__(self, workdir, project, values):
    import wandb

    place = storage.path(workdir)
    known = place / _FILE
    if known.exists():
      form = schema.table({"id": _ID}, required=("id",))
      advice = "remove it, and the run will start a new one at Weights & Biases"
      identity = schema.loads(storage.read(known, 1 << 20), form, str(known), advice)["id"]
    else:
      identity = uuid.uuid4().hex[:8]
      storage.write(known, json.dumps({"id": identity}) + "\n", "the id of the run at wandb")
    try:
      self._run = wandb.init(
        project=project,
        id=identity,
        name=place.name,
        resume="allow",
        config=values,
        dir=None if storage.in_bucket(place) else str(place),
      )
    except Exception as error:  # a missing login or network raises unrelated types
      raise InputError(
        f"wandb {project!r} cannot start ({type(error).__name__}: {str(error)[:200]}): log in with "
        "wandb login, set WANDB_MODE=offline, or leave the key empty"
      ) from error

  def add(self, step, scalars):
    """Logs {tag: number} of a step."""
    self._run.log(scalars, step=step)

  def close(self):
    """Ends the run at Weights & Biases."""
    self._run.finish()
