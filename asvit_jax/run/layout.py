"""What a run writes into its workdir, by name."""

from asvit_jax.core import storage

FILES = ("config.json", "network.json", "inputs.json", "metrics.jsonl", "lock", "wandb.json")
DIRECTORIES = ("checkpoints", "damaged", "lists", "pictures", "tensorboard", "wandb")


def check(workdir):
  """Raises InputError where a run could not write to a workdir, which need not be there yet.

  The workdir may be a link to a directory. Under the names of the run, in it, may be no links: what
  a run removes, as it does old checkpoints, would be somewhere else.
  """
  storage.check_writable(workdir, "workdir", FILES, DIRECTORIES)
  checkpoints = storage.path(workdir) / "checkpoints"
  if not storage.in_bucket(checkpoints) and checkpoints.is_dir():
    steps = [f"checkpoints/{step.name}" for step in checkpoints.iterdir() if step.name.isdigit()]
    storage.check_writable(workdir, "workdir", directories=steps)
