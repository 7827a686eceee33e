"""What a run begins with: its data and its network, opened and checked."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from asvit_jax import vit
from asvit_jax.config.model import architecture, preprocessing
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.data import loader, sources
from asvit_jax.losses import class_weights
from asvit_jax.network import Network, load_configured
from asvit_jax.sparsity import dial
from asvit_jax.sparsity.calibration import MAX_IMAGES
from asvit_jax.sparsity.complexity import check_budget
from asvit_jax.training.optimizers import groups


@dataclasses.dataclass(frozen=True)
class Setup:
  """See `set_up`.

  Attributes:
    network: the `Network` to train, with its first parameters; it prunes where there is a budget.
    source: images to train on.
    eval_source: images to evaluate on.
    class_weights: what each class counts for in the loss; None for 1.
  """

  network: Network
  source: Any
  eval_source: Any
  class_weights: tuple[float, ...] | None = None

  @property
  def teacher_params(self):
    """Of the frozen dense network with the same weights; () for a dense network."""
    return self.network.dense.params if self.network.prunes else ()


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
  network = _first_network(config, tuple(names), source)
  for images in () if _goes_on(workdir) else (source, eval_source):
    sources.check_images(images, config.data.check_images, config.data.max_bad_images)
  groups.check_frozen(network.params, config.optimizer.freeze)
  weights = class_weights.of(config.criterion.class_weights, config.model.num_classes, source)
  return Setup(network, source, eval_source, weights)


def _cached_in(workdir, data):
  """`config.data` with a directory in the workdir for its lists, which must be on a disk."""
  if data.cache or workdir is None or storage.in_bucket(workdir):
    return data
  data = data.copy_and_resolve_references()
  data.cache = str(storage.path(workdir) / "lists")
  return data


def _goes_on(workdir):
  """Whether there is a checkpoint to go on from."""
  if workdir is None:
    return False
  checkpoints = storage.path(workdir) / "checkpoints"
  return checkpoints.is_dir() and any(step.name.isdigit() for step in checkpoints.iterdir())


def calibrated(config, network, source):
  """The network with thresholds that meet the budget on a sample of the images to train on."""
  sample = sources.Sample(source, MAX_IMAGES)
  batches = loader.eval_batches(config, sample, network.preprocessing)
  return network.calibrate(batches, network.budgets or config.budget)


def _first_network(config, classes, source):
  """The weights of `init_from` over random ones; thresholds stay where these are dense."""
  if config.init_from:
    network = load_configured(
      config.init_from,
      config,
      resize=config.init_resize,
      new_head=config.init_new_head,
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
  params = vit.initial_params(arch.dense if config.budget is None else arch, seed=config.seed)
  params |= (network.at(config.budget) if network.budgets else network).params
  network = dataclasses.replace(network, params=params, classes=classes, budgets=())
  if config.budget_range is None:
    return network
  budgets = dial.spread(*config.budget_range, config.budget)
  rows = jnp.tile(params["thresholds"], (len(budgets), 1))  # until they are calibrated
  return network.with_thresholds(rows, budgets)
