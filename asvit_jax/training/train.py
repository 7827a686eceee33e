"""Training, top to bottom: resolve the config, open the run, claim the workdir, take the steps."""

from asvit_jax.config import identity
from asvit_jax.config.plan import resolve
from asvit_jax.core import exchange, hosts
from asvit_jax.core.devices import precision
from asvit_jax.core.errors import InputError
from asvit_jax.data import workers
from asvit_jax.optimizers import building
from asvit_jax.run import inputs as inputs_lib
from asvit_jax.run import layout, lock
from asvit_jax.training import summary
from asvit_jax.training.opening import open_run
from asvit_jax.training.session import Session
from asvit_jax.training.step import make_program


def train(config, workdir, dry_run=False):
  """Trains a network, or resumes a run that was stopped.

  Args:
    config: see `config.base`.
    workdir: directory of the run, or `gs://BUCKET/…`. The run writes `config.json`, `plan.json`,
      `network.json`, `inputs.json`, `checkpoints/`, `metrics.jsonl`, `pictures/`, `tensorboard/`
      and `lock` there.
    dry_run: checks everything, writes nothing, and describes the run.

  Returns:
    Dictionary: `workdir`, `step`, and the last evaluation; `finished` is False if SIGTERM, Ctrl-C
    or SIGHUP ended the run. For a dry run: the result of `summary.summarize`, the `memory_mb` of a
    step on a device, and the `plan`.

  Raises:
    InputError: the config, the data, the weights or the workdir do not fit, which is checked before
      the first step where possible; another run writes to the workdir; the disk is full; more
      images are unreadable than allowed.
    DivergedError: the loss or its gradient is not finite for too many steps in a row.
  """
  workers.check_script()
  plan = identity.as_begun(resolve(config), workdir)
  with precision(plan.model.precision):
    exchange.check_same(plan.of_all_hosts(), "give all of them the same flags")
    before = identity.check_config(plan, workdir)
    extension = (
      identity.describe_extension(plan, before) if layout.has_checkpoint(workdir) else None
    )
    if not dry_run:
      lock.check(workdir)
    opened = open_run(plan, None if dry_run else workdir)
    inputs = _check_inputs(opened, workdir, before.moved)
    if extension is not None:
      hosts.log_first(extension)
    if dry_run:
      return _describe(opened)
    try:
      with lock.held(workdir) as check_lock:
        identity.save_run(opened.plan, opened.network.describe(), inputs, workdir)
        session = Session(opened, workdir, check_lock)
        del opened  # its parameters would occupy device memory during the whole run
        return session.run()
    except OSError as error:
      raise InputError(
        f"the run in {workdir} cannot read or write a file ({error}): make room or repair the "
        "disk, and run the same command to resume from the last checkpoint"
      ) from error


def _check_inputs(opened, workdir, moved):
  """Checks that data and weights are the same on all hosts and as when the run began.

  Returns:
    The result of `run.inputs.describe`.
  """
  inputs = inputs_lib.describe(
    opened.source, opened.teacher_params, opened.plan.class_weights, opened.network.params
  )
  exchange.check_same(
    {"images to train on": inputs["images"], "images to evaluate on": len(opened.eval_source)}
    | {"teacher (its checksum)": inputs["teacher"]},
    "give all of them the same data and weights",
  )
  inputs_lib.check(inputs, workdir, moved)
  identity.check_network(opened.network.describe(), workdir)
  return inputs


def _describe(opened):
  """Logs the description of a dry run, and returns its dictionary."""
  plan, network = opened.plan, opened.network
  counted = summary.summarize(plan, network, opened.source, opened.eval_source)
  hosts.log_first(plan.describe())
  hosts.log_first(summary.describe(counted))
  optimizer = building.create(plan.optimizer, plan.schedule)
  program, _ = make_program(plan, network, optimizer)
  memory = summary.memory_mb(plan, program, network, optimizer)
  return counted | {"memory_mb": memory, "plan": plan.to_json()}
