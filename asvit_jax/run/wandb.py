"""Scalars for Weights & Biases, beside TensorBoard's, where `pip install wandb` was run."""

import json
import uuid

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError

_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}
_FILE = "wandb.json"  # in the workdir: the run's id, by which it goes on there


class Wandb:
  """Logs to the run of a workdir; a run that goes on logs to the one it began.

  Steps that it logged before, and repeats after a kill, are there already: it leaves them as they
  are.

  Args:
    workdir: where the run lives.
    project: name of the project.
    values: config of the run, a nested dictionary.

  Raises:
    InputError: it cannot begin.
  """

  def __init__(self, workdir, project, values):
    import wandb

    place = storage.path(workdir)
    known = place / _FILE
    if known.exists():
      form = schema.table({"id": _ID}, required=("id",))
      advice = "remove it, and the run begins another one there"
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
    except Exception as error:  # without a login, without a network: they have no common type
      raise InputError(
        f"wandb {project!r} cannot begin ({type(error).__name__}: {str(error)[:200]}): log in with "
        "wandb login, set WANDB_MODE=offline, or leave the key empty"
      ) from error

  def add(self, step, scalars):
    """Logs {tag: number} of a step."""
    self._run.log(scalars, step=step)

  def close(self):
    """Ends the run there."""
    self._run.finish()
