"""What a run begins with: its data and its network, opened and checked."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from asvit_jax import vit
from asvit_jax.config.model import PRUNING, architecture, preprocessing
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.data import loader, sources
from asvit_jax.losses import class_weights
from asvit_jax.network import Network, load_configured
from asvit_jax.run.layout import has_checkpoint
from asvit_jax.sparsity import schedule
from asvit_jax.sparsity.calibration import MAX_IMAGES
from asvit_jax.sparsity.complexity import check_budget
from asvit_jax.training.optimizers import groups


@dataclasses.dataclass(frozen=True)
class Setup:
  """The network, data and teacher of a run, as `set_up` opens them.

  Attributes:
    network: the `Network` to train, with its initial parameters; it prunes if there is a budget.
    source: images to train on.
    eval_source: images to evaluate on.
    teacher_params: parameters of the frozen dense teacher; () when training a dense network.
    class_weights: weight of each class in the loss; None for equal weights.
  """

  network: Network
  source: Any
  eval_source: Any
  teacher_params: Any = ()
  class_weights: tuple[float, ...] | None = None


def set_up(config, workdir=None):
  """Opens the data and the weights of a config.

  Args:
    config: see `config.base`; its values are checked.
    workdir: of the run, where the lists of a folder's files are kept unless `data.cache` says
      where. With a checkpoint in it, the images were checked when the run began, and are not
      again. None to check them all and to write nothing.

  Returns:
    A `Setup`.

  Raises:
    InputError: data that is not there, images that cannot be read, weights that do not fit.
  """
  data = _cached_in(workdir, config.data)
  source = sources.open_source(data, data.train_split)
  eval_source = sources.open_source(data, data.eval_split)
  loader.check_classes(config, source)
  loader.check_classes(config, eval_source)
  names = sources.class_names(config.data) or source.classes
  network, was_pruned = _first_network(config, tuple(names), source)
  teacher_params = _teacher_params(config, network, was_pruned) if network.prunes else ()
  goes_on = workdir is not None and has_checkpoint(workdir)
  for images in () if goes_on else (source, eval_source):
    sources.check_images(images, config.data.check_images, config.data.max_bad_images)
  groups.check_frozen(network.params, config.optimizer.freeze)
  weights = class_weights.of(config.criterion.class_weights, config.model.num_classes, source)
  return Setup(network, source, eval_source, teacher_params, weights)


def _cached_in(workdir, data):
  """`config.data` with a directory in the workdir for its lists, which must be on a disk."""
  if data.cache or workdir is None or storage.in_bucket(workdir):
    return data
  data = data.copy_and_resolve_references()
  data.cache = str(storage.path(workdir) / "lists")
  return data


def calibrated(config, network, source):
  """The network with thresholds that meet the budget on a sample of the images to train on."""
  sample = sources.Sample(source, MAX_IMAGES)
  batches = loader.eval_batches(config, sample, network.preprocessing)
  # Counts are of these thresholds, and training moves them.
  return network.calibrate(batches, network.budgets or config.budget).with_counts(())


def _first_network(config, classes, source):
  """The weights of `init_from` over random ones; thresholds stay where these are dense.

  Returns:
    The `Network`, and whether the weights are a pruned one's.
  """
  if config.init_from:
    network = load_configured(
      config.init_from,
      config,
      resize=config.init_resize,
      new_head=config.init_new_head,
      key=config.init_key,
      step=config.init_step,
      weights_of=config.init_weights_of,
    )
    sources.check_order(network.classes, config.data, source)
  else:
    network = Network(
      architecture(config),
      {},
      config.model.dtype,
      preprocessing(config),
      variant=config.model.variant,
    )
  arch = network.arch
  if config.budget is not None:
    check_budget(arch, config.budget)  # it may prune elsewhere than the config's variant does
  elif network.prunes:
    raise InputError(
      f"weights {config.init_from} does not fit this model: it has thresholds, and a network "
      "that is trained without a budget has none; give a budget, or dense weights"
    )
  # A dense network remembers where it could prune, but has no thresholds.
  was_pruned = network.prunes
  params = vit.initial_params(arch.dense if config.budget is None else arch, seed=config.seed)
  params |= (network.at(config.budget) if network.budgets else network).params
  network = dataclasses.replace(
    network, params=params, classes=classes, budgets=(), counts=(), speedups=()
  )
  if config.budget_range is None:
    return network, was_pruned
  budgets = schedule.budgets_of_range(*config.budget_range, config.budget)
  rows = jnp.tile(params["thresholds"], (len(budgets), 1))  # until they are calibrated
  return network.with_thresholds(rows, budgets), was_pruned


def _teacher_params(config, network, was_pruned):
  """The parameters of the dense network that teaches: of `teacher_from`, or the first ones.

  Args:
    config: see `config.base`.
    network: the `Network` to train.
    was_pruned: whether its weights are a pruned network's.

  Raises:
    InputError: a teacher of other dimensions, or one that expects other pixels.
  """
  if not config.teacher_from:
    if was_pruned:
      log(
        f"WARNING: the weights {config.init_from} are of a network that was pruned before, and so "
        "its teacher is, too: what that has unlearned, it cannot teach; give the dense weights "
        "as config.teacher_from"
      )
    return network.dense.params
  teacher = load_configured(config.teacher_from, config, resize=config.init_resize)
  if teacher.prunes:
    log(
      f"WARNING: teacher_from {config.teacher_from} is of a network that was pruned; its weights "
      "teach without their thresholds: give those from before it was"
    )
  name = f"teacher_from {config.teacher_from}"
  fields = [f.name for f in dataclasses.fields(network.arch) if f.name not in PRUNING]
  differ = [f for f in fields if getattr(teacher.arch, f) != getattr(network.arch, f)]
  if differ:
    listed = "; ".join(
      f"{f} {getattr(teacher.arch, f)!r}, not {getattr(network.arch, f)!r}" for f in differ
    )
    raise InputError(f"{name} is of another network ({listed}): give one of the same dimensions")
  theirs, ours = teacher.preprocessing, network.preprocessing
  if (theirs.mean, theirs.std) != (ours.mean, ours.std):
    raise InputError(
      f"{name} expects pixels of mean {theirs.mean} and std {theirs.std}, and the network to train "
      f"of {ours.mean} and {ours.std}: they see the same images; give a teacher of the same"
    )
  return teacher.dense.params
