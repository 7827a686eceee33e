"""Opening a run: its images, its network and its teacher, loaded and checked."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from asvit_jax import vit
from asvit_jax.config.model import PRUNING
from asvit_jax.config.plan import Plan
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.data import loader, sources
from asvit_jax.losses import class_weights
from asvit_jax.network import Network, load_configured
from asvit_jax.optimizers import groups
from asvit_jax.run.layout import has_checkpoint
from asvit_jax.sparsity import schedule
from asvit_jax.sparsity.calibration import MAX_IMAGES
from asvit_jax.sparsity.complexity import check_budget


@dataclasses.dataclass(frozen=True)
class Opened:
  """A run's data and networks before its first step, as `open_run` returns them.

  Attributes:
    plan: the `Plan`, complete.
    network: the `Network` to train, with its initial parameters; it prunes if there is a budget.
    source: images to train on.
    eval_source: images to evaluate on.
    teacher_params: parameters of the frozen dense teacher; () when training a dense network.
  """

  plan: Plan
  network: Network
  source: Any
  eval_source: Any
  teacher_params: Any = ()


def open_run(plan, workdir=None):
  """Opens the data and the weights of a plan, and completes it.

  Args:
    plan: a `Plan`.
    workdir: directory of the run. Lists of a folder's files are cached there unless `data.cache`
      names another directory. If it has a checkpoint, the images were checked when the run began
      and are not checked again. None checks all images and writes nothing.

  Returns:
    An `Opened`.

  Raises:
    InputError: missing data, unreadable images, or weights that do not fit.
  """
  check_kernels(plan, plan.arch, jax.default_backend())
  data = _cached_in(workdir, plan.data)
  source = sources.open_source(data, data.train_split)
  eval_source = sources.open_source(data, data.eval_split)
  loader.check_classes(plan, source)
  loader.check_classes(plan, eval_source)
  names = sources.class_names(plan.data) or source.classes
  network, was_pruned = _first_network(plan, tuple(names), source)
  check_kernels(plan, network.arch, jax.default_backend())  # weights may have other tokens
  teacher_params = _teacher_params(plan, network, was_pruned) if network.prunes else ()
  goes_on = workdir is not None and has_checkpoint(workdir)
  for images in () if goes_on else (source, eval_source):
    sources.check_images(images, plan.data.check_images, plan.data.max_bad_images)
  groups.check_frozen(network.params, plan.optimizer.freeze)
  weights = class_weights.of(plan.criterion.class_weights, plan.model.num_classes, source)
  plan = plan.of_images(len(source)).of_network(network.arch, network.preprocessing, weights)
  return Opened(plan, network, source, eval_source, teacher_params)


def check_kernels(plan, arch, platform):
  """Raises InputError if `model.kernels` is on, and the kernels do not run the training step.

  Args:
    plan: a `Plan`.
    arch: the `Architecture` to train.
    platform: JAX's name of the platform to train on.
  """
  if not plan.model.kernels:
    return
  from asvit_jax.sparsity import step_kernels  # Pallas takes a second to import

  reason = step_kernels.refuses(arch, plan.model.dtype)
  if reason is None and platform != "tpu":
    reason = f"they are for a TPU, and this is a {platform}"
  if reason is not None:
    raise InputError(
      f"model.kernels True is not valid: the kernels do not run this training step, as {reason}; "
      "leave the key at False"
    )


def _cached_in(workdir, data):
  """`Plan.data` with a cache directory in the workdir, unless that is in a bucket."""
  if data.cache or workdir is None or storage.in_bucket(workdir):
    return data
  return dataclasses.replace(data, cache=str(storage.path(workdir) / "lists"))


def calibrated(plan, network, source):
  """The network with thresholds that meet the budget on a sample of the training images."""
  sample = sources.Sample(source, MAX_IMAGES)
  batches = loader.eval_batches(plan, sample, network.preprocessing)
  # The counts belong to these thresholds, which training will move.
  return network.calibrate(batches, network.budgets or plan.budget).with_counts(())


def _first_network(plan, classes, source):
  """The network to train: random parameters, overwritten by the weights of `init_from`.

  Dense weights leave the initial thresholds as they are.

  Returns:
    The `Network`, and whether the weights are those of a pruned network.
  """
  if plan.init_from:
    network = load_configured(
      plan.init_from,
      plan,
      resize=plan.init_resize,
      new_head=plan.init_new_head,
      key=plan.init_key,
      step=plan.init_step,
      weights_of=plan.init_weights_of,
    )
    sources.check_order(network.classes, plan.data, source)
  else:
    network = Network.without_params(
      plan.arch, plan.model.dtype, plan.preprocessing, plan.model.variant
    )
  arch = network.arch
  arch.check_classifies("training of")
  if plan.budget is not None:
    check_budget(arch, plan.budget)  # the weights may have other stages than the config's variant
  elif network.prunes:
    raise InputError(
      f"weights {plan.init_from} does not fit this model: the file has thresholds, but a network "
      "trained without a budget has none; give a budget, or dense weights"
    )
  # A dense network remembers where it could prune, but has no thresholds.
  was_pruned = network.prunes
  params = vit.initial_params(arch.dense if plan.budget is None else arch, seed=plan.seed)
  params |= (network.at(plan.budget) if network.budgets else network).params
  network = dataclasses.replace(
    network, params=params, classes=classes, budgets=(), counts=(), speedups=()
  )
  if plan.budget_range is None:
    return network, was_pruned
  budgets = schedule.budgets_of_range(*plan.budget_range, plan.budget)
  rows = jnp.tile(params["thresholds"], (len(budgets), 1))  # calibration replaces them
  return network.with_thresholds(rows, budgets), was_pruned


def _teacher_params(plan, network, was_pruned):
  """The parameters of the dense teacher: those of `teacher_from`, or the student's initial ones.

  Args:
    plan: a `Plan`.
    network: the `Network` to train.
    was_pruned: whether its weights are those of a pruned network.

  Raises:
    InputError: a teacher of another architecture, or one with another pixel normalization.
  """
  if not plan.teacher_from:
    if was_pruned:
      log(
        f"WARNING: the weights {plan.init_from} come from a pruned network, so the teacher does, "
        "too, and is less accurate than the dense network; give the dense weights as "
        "config.teacher_from"
      )
    return network.dense.params
  teacher = load_configured(plan.teacher_from, plan, resize=plan.init_resize)
  if teacher.prunes:
    log(
      f"WARNING: teacher_from {plan.teacher_from} is a pruned network; its weights teach without "
      "their thresholds; better give the dense weights from before pruning"
    )
  name = f"teacher_from {plan.teacher_from}"
  fields = [f.name for f in dataclasses.fields(network.arch) if f.name not in PRUNING]
  differ = [f for f in fields if getattr(teacher.arch, f) != getattr(network.arch, f)]
  if differ:
    listed = "; ".join(
      f"{f} {getattr(teacher.arch, f)!r}, not {getattr(network.arch, f)!r}" for f in differ
    )
    raise InputError(f"{name} is of another network ({listed}): give one of the same architecture")
  theirs, ours = teacher.preprocessing, network.preprocessing
  if (theirs.mean, theirs.std) != (ours.mean, ours.std):
    raise InputError(
      f"{name} expects pixels of mean {theirs.mean} and std {theirs.std}, but the network to train "
      f"expects {ours.mean} and {ours.std}: both see the same images; give a teacher with the same "
      "mean and std"
    )
  return teacher.dense.params
