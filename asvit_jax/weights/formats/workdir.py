"""Workdirs of runs: the weights that a run arrived at."""

from asvit_jax.config.model import architecture, trained_architecture
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.run import identity
from asvit_jax.vit import Architecture
from asvit_jax.weights.names import to_timm
from asvit_jax.weights.stored import Stored


class Workdir:
  """See `formats`."""

  expects = "the workdir of a run"

  def recognizes(self, source):
    """Any directory."""
    return storage.path(source).is_dir()

  def read(self, source):
    """See `formats`; the averaged weights where the run averages, of the latest good step."""
    from asvit_jax.run.checkpoints import Checkpoints  # Orbax takes a second to import

    config, description = identity.load(source), identity.load_description(source)
    checkpoints = Checkpoints(source, read_only=True)
    if checkpoints.latest_step is None:
      raise InputError(f"{source} has no checkpoint yet: let train.py save one first")
    arch = trained_architecture(config)
    if "architecture" in description:
      arch = Architecture.from_json(description["architecture"], f"workdir {source}")
      arch = arch.dense if config.budget is None else arch
    else:  # of a run from before it was written
      description = {
        "variant": config.model.variant,
        "architecture": architecture(config).to_json(),
        "preprocessing": {"crop_ratio": config.data.crop_ratio},
      }
    name = "ema" if config.ema_decay else "params"
    budgets = len(description.get("budgets", ()))
    return Stored(to_timm(checkpoints.restore_weights(arch, name, budgets)), description)


workdir = Workdir()
