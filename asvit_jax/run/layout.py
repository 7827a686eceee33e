"""What a run writes into its workdir, by name."""

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError

FILES = (
  *("config.json", "plan.json", "network.json", "inputs.json", "metrics.jsonl"),
  *("lock", "wandb.json"),
)
DIRECTORIES = ("checkpoints", "damaged", "lists", "pictures", "tensorboard", "wandb")

# What is there only once `config.json` is, which a run writes first. A run that was killed before
# leaves `lock` and `lists`; and what others have in `wandb` has names of its own.
_AFTER_CONFIG = frozenset((*FILES, *DIRECTORIES)) - {"lock", "lists", "wandb"}


def is_run(workdir):
  """Whether a run has begun there; the hub's directories have a config.json, too, of other keys."""
  path = storage.path(workdir) / "config.json"
  try:
    if not path.is_file():
      return False
  except OSError:  # no file can have that name
    return False
  try:
    return "optimizer" in schema.loads(storage.read(path, schema.MOST_BYTES), schema.table(), "it")
  except (OSError, ValueError):
    return True  # of a run; `identity.load` says what is wrong with it


def steps(workdir):
  """The directories of a run's checkpoints, by their names in its workdir."""
  checkpoints = storage.path(workdir) / "checkpoints"
  if not checkpoints.is_dir():
    return []
  return [f"checkpoints/{step.name}" for step in checkpoints.iterdir() if step.name.isdigit()]


def has_checkpoint(workdir):
  """Whether the run in a workdir has a checkpoint to go on from."""
  return bool(steps(workdir))


def check(workdir):
  """Raises InputError where a run could not write to a workdir, which need not be there yet.

  The workdir may be a link to a directory. Under the names of the run, in it, may be no links: what
  a run removes, as it does old checkpoints, would be somewhere else. Nor may anything be there
  under these names where no run has begun: it would be written over, or taken for the run's.
  """
  storage.check_writable(workdir, "workdir", FILES, DIRECTORIES)
  if not storage.in_bucket(workdir):  # what is listed is no link by now
    storage.check_writable(workdir, "workdir", directories=steps(workdir))
  if not is_run(workdir):
    _check_free(workdir)


def _check_free(workdir):
  for name in (*FILES, *DIRECTORIES):
    path = storage.path(workdir) / name
    if name in _AFTER_CONFIG and path.exists() and not _is_empty_directory(path):
      raise InputError(
        f"workdir {workdir} holds {name} of something else, and no run: a run would write there: "
        "give another --workdir"
      )


def _is_empty_directory(path):
  return path.is_dir() and next(iter(path.iterdir()), None) is None
