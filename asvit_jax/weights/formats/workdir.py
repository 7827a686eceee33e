"""Workdirs of runs: the weights in a run's checkpoints."""

from asvit_jax.config import identity
from asvit_jax.config import parts as config_parts
from asvit_jax.config.plan import unchecked
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.run import choice, ranking
from asvit_jax.sparsity.complexity import check_budget
from asvit_jax.vit import Architecture
from asvit_jax.weights.formats.repository import weights_in
from asvit_jax.weights.names import to_timm
from asvit_jax.weights.stored import Stored


class Workdir:
  """The format of workdirs; see `formats`."""

  expects = "the workdir of a run"

  def recognizes(self, source):
    """Whether the source is a directory."""
    return storage.path(source).is_dir()

  def read(self, source, step="", weights_of="", parts=()):
    """The `Stored` of a step's weights, chosen as in `run.choice.check`; see `formats`."""
    from asvit_jax.run.checkpoints import Checkpoints  # Orbax takes a second to import

    # Loading weights needs no parts for data or optimizer.
    plan = unchecked(identity.load(source, parts, config_parts.NETWORK))
    description = identity.load_description(source)
    arch = plan.arch
    if "architecture" in description:
      arch = Architecture.from_json(description["architecture"], f"workdir {source}", parts)
    else:  # a run of a version that stored no description
      ratio = plan.data.crop_ratio
      description = {
        "variant": plan.model.variant,
        "architecture": arch.to_json(),
        "preprocessing": {} if ratio is None else {"crop_ratio": ratio},
      }
    if plan.prunes:
      check_budget(arch, plan.budget)
    else:
      arch = arch.dense
    checkpoints = Checkpoints(source, read_only=True)
    if checkpoints.latest_step is None:
      raise InputError(f"{source} has no checkpoint yet: let train.py save one first")
    beside = weights_in(storage.path(source))
    if beside:
      log(
        f"{source} holds a run and {beside[0]}: using the weights of the run; give the path of "
        f"{beside[0]} to use that file"
      )
    step, kind = choice.choose(source, plan, checkpoints.steps, step, weights_of)
    name = {ranking.EMA: "ema", ranking.RAW: "params"}[kind]
    budgets = len(description.get("budgets", ()))
    return Stored(to_timm(checkpoints.restore_weights(arch, name, budgets, step)), description)


workdir = Workdir()
