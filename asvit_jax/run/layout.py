"""The files and directories that a run writes into its workdir."""

from asvit_jax.core import schema, storage
from asvit_jax.core.errors import InputError

FILES = (
  *("config.json", "plan.json", "network.json", "inputs.json", "metrics.jsonl"),
  *("lock", "wandb.json"),
)
DIRECTORIES = ("checkpoints", "damaged", "lists", "pictures", "tensorboard", "wandb")

# A run writes these only after `config.json`. `lock` and `lists` come before it, and a run killed
# early leaves them; `wandb` may hold directories of other programs.
_AFTER_CONFIG = frozenset((*FILES, *DIRECTORIES)) - {"lock", "lists", "wandb"}

# Keys by which these files are known as those of a run.
_KNOWN_BY = {"plan.json": "optimizer", "network.json": "architecture", "inputs.json": "teacher"}


def is_run(workdir):
  """Whether a workdir holds a run. Directories of the hub have a config.json of other keys."""
  # A damaged config is that of a run; `identity.load` reports it.
  return _has_key(workdir, "config.json", "optimizer", if_damaged=True)


def check_config_is_there(workdir):
  """Raises InputError for the workdir of a run whose config.json was lost."""
  found = [name for name, key in _KNOWN_BY.items() if _has_key(workdir, name, key)] + steps(workdir)
  if found and not is_run(workdir):
    raise InputError(
      f"workdir {workdir} has {', '.join(found[:4])} of a run, but not its config.json: restore "
      "that file from a copy (plan.json lists its values), or give another --workdir"
    )


def _has_key(workdir, name, key, if_damaged=False):
  """Whether a file of a workdir is a JSON object with a key."""
  path = storage.path(workdir) / name
  try:
    if not path.is_file():
      return False
  except OSError:  # no file can have such a name
    return False
  try:
    return key in schema.loads(storage.read(path, schema.MOST_BYTES), schema.table(), "it")
  except (OSError, ValueError):
    return if_damaged


def steps(workdir):
  """The directories of a run's checkpoints, relative to its workdir."""
  checkpoints = storage.path(workdir) / "checkpoints"
  if not checkpoints.is_dir():
    return []
  return [f"checkpoints/{step.name}" for step in checkpoints.iterdir() if step.name.isdigit()]


def has_checkpoint(workdir):
  """Whether the run in a workdir has a checkpoint to resume from."""
  return bool(steps(workdir))


def check(workdir):
  """Raises InputError if a run could not write to a workdir, which need not exist yet.

  The workdir may be a link to a directory. The run's own files and directories in it may not be
  links, because a run that removes old checkpoints would remove files elsewhere. If no run has
  begun there, they may not exist, because the run would overwrite them or take them for its own.
  """
  storage.check_writable(workdir, "workdir", FILES, DIRECTORIES)
  if not storage.in_bucket(workdir):  # `checkpoints` itself is no link, as was just checked
    storage.check_writable(workdir, "workdir", directories=steps(workdir))
  if not is_run(workdir):
    _check_free(workdir)


def _check_free(workdir):
  check_config_is_there(workdir)
  for name in (*FILES, *DIRECTORIES):
    path = storage.path(workdir) / name
    if name in _AFTER_CONFIG and path.exists() and not _is_empty_directory(path):
      raise InputError(
        f"workdir {workdir} holds no run, but {name} of something else, which a run would "
        "overwrite: give another --workdir"
      )


def _is_empty_directory(path):
  return path.is_dir() and next(iter(path.iterdir()), None) is None
