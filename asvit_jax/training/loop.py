"""Training from a config and a workdir: what is checked, in which order, and then the run."""

from asvit_jax.config import rules
from asvit_jax.core import exchange, hosts
from asvit_jax.core.devices import precision
from asvit_jax.core.errors import InputError
from asvit_jax.data import workers
from asvit_jax.run import identity, layout, lock
from asvit_jax.run import inputs as inputs_lib
from asvit_jax.training import plan
from asvit_jax.training.optimizers import building
from asvit_jax.training.program import make_program
from asvit_jax.training.reporting import log
from asvit_jax.training.session import Session
from asvit_jax.training.setup import set_up


def train(config, workdir, dry_run=False):
  """Trains a network, or goes on with a run that stopped.

  Args:
    config: see `config.base`.
    workdir: gets `config.json`, `network.json`, `inputs.json`, `checkpoints/`, `metrics.jsonl`,
      `pictures/`, `tensorboard/` and `lock`; a directory, or `gs://BUCKET/…`.
    dry_run: check everything, write nothing, and say what would be run.

  Returns:
    Dictionary: `workdir`, `step`, and the last evaluation; where SIGTERM, Ctrl-C or SIGHUP ended
    the run, `finished` is False. Of a dry run, what `plan.plan` says and the `memory_mb` of a step
    on a device.

  Raises:
    InputError: anything in the config, the data, the weights or the workdir that does not fit,
      before the first step where it can be known then; another run that writes there; a disk that
      is full; more unreadable images than allowed; a loss that stays not finite (`DivergedError`).
  """
  workers.check_script()
  rules.check(config)
  config = identity.as_begun(config, workdir)
  with precision(config.model.precision):
    return _train(config, workdir, dry_run)


def _train(config, workdir, dry_run):
  building.check(config)
  exchange.check_same(identity.of_all_hosts(config), "give all of them the same flags")
  moved = identity.check_config(config, workdir)
  extension = plan.describe_extension(config, workdir) if layout.has_checkpoint(workdir) else None
  if not dry_run:
    lock.check(workdir)
  setup = set_up(config, None if dry_run else workdir)
  inputs = inputs_lib.describe(
    setup.source, setup.teacher_params, setup.class_weights, setup.network.params
  )
  exchange.check_same(
    {"images to train on": inputs["images"], "images to evaluate on": len(setup.eval_source)}
    | {"teacher (its checksum)": inputs["teacher"]},
    "give all of them the same data and weights",
  )
  inputs_lib.check(inputs, workdir, moved)
  description = setup.network.describe()
  identity.check_network(description, workdir)
  if extension is not None:
    log(extension)
  if dry_run:
    return _describe(config, setup)
  try:
    with lock.held(workdir) as check_lock:
      if hosts.is_first():
        identity.save(config, workdir, description)
        inputs_lib.save(inputs, workdir)
      session = Session(config, workdir, setup, check_lock)
      del setup  # its parameters would take a device's memory for as long as the run goes
      return session.run()
  except OSError as error:
    raise InputError(
      f"the run in {workdir} cannot read or write a file ({error}): make room or mend the disk, "
      "and run the same command to go on from its last checkpoint"
    ) from error


def _describe(config, setup):
  planned = plan.plan(config, setup.network, setup.source, setup.eval_source)
  log(plan.describe(planned))
  optimizer, _ = building.create(config, planned["steps"])
  program, _ = make_program(config, setup.network, optimizer, None, setup.class_weights)
  return planned | {"memory_mb": plan.memory_mb(config, program, setup.network, optimizer)}
