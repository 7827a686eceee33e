"""`Network`: a vision transformer, dense or pruned, with everything needed to use it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax import vit
from asvit_jax.core import leaves, sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.promotion import usual
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.export import writing
from asvit_jax.network import calibrating, checking, streaming
from asvit_jax.network.changing import Changing
from asvit_jax.network.reading import read_images
from asvit_jax.pacing import speeds
from asvit_jax.sparsity import calibration, complexity, search
from asvit_jax.sparsity.executions import EXECUTIONS
from asvit_jax.vit import images as image_arrays
from asvit_jax.weights import saving


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=["params"],
  meta_fields=[
    *("arch", "dtype", "preprocessing", "classes", "variant"),
    *("budgets", "counts", "speedups"),
  ],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Network(Changing):
  """A vision transformer with its parameters and everything needed to use them correctly.

  A network is a pytree whose leaves are the parameters, so it passes through `jax.jit`,
  `jax.device_put` and `jax.tree`. It is immutable: methods that change something return another
  network. Two networks are equal if all fields are, arrays by value; the hash ignores the
  parameters.

  Attributes:
    arch: the `Architecture`, including the stages at which the network prunes or can prune.
    params: nested dictionary of float32 arrays; the network prunes if it contains `thresholds`.
    dtype: compute type, "float32" or "bfloat16".
    preprocessing: the `Preprocessing` that its images need.
    classes: names by label, or None if unknown.
    variant: name of the architecture, for display.
    budgets: shares of the dense GMACs, one for each row of thresholds of a network with several
      rows; it runs at the first budget, or `at` another. () for one set of thresholds, or none.
    counts: number of patches that each stage keeps of every image in fixed execution: one row, or
      one for each of `budgets`; () if unknown.
    speedups: the `Speed` of each row of thresholds, if they were calibrated for speeds; else ().
    reached: the `calibrating.Reached` of each budget or speed-up, in the network that `calibrate`
      or `search` returns; () in any other, also in a changed copy. Not compared, not saved.
  """

  arch: vit.Architecture
  params: Any
  dtype: str = "float32"
  preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
  classes: tuple[str, ...] | None = None
  variant: str = ""
  budgets: tuple[float, ...] = ()
  counts: tuple[tuple[int, ...], ...] = ()
  speedups: tuple[speeds.Speed, ...] = ()
  reached: tuple[calibrating.Reached, ...] = dataclasses.field(default=(), init=False, repr=False)

  def __post_init__(self):
    """Raises InputError for an invalid field; parameters are checked when the network runs."""
    for name, value in checking.fields_of(self).items():
      object.__setattr__(self, name, value)

  @classmethod
  def without_params(cls, arch, dtype="float32", preprocessing=None, variant=""):
    """A network whose parameters follow, with `dataclasses.replace`; until then it cannot run.

    Args:
      arch: the `Architecture`.
      dtype: compute type, "float32" or "bfloat16".
      preprocessing: the `Preprocessing`; by default ImageNet's.
      variant: name of the architecture.

    Raises:
      InputError: an invalid field.
    """
    return cls(arch, {}, dtype, preprocessing or Preprocessing(), variant=variant)

  def __eq__(self, other):
    """Whether all fields are equal; False for values that cannot be compared, as traced arrays."""
    if not isinstance(other, type(self)):
      return NotImplemented
    if self is other:
      return True
    try:
      same = bool(self._facts == other._facts)
    except (TypeError, ValueError):  # of arrays in a field
      return False
    return same and leaves.equal(self.params, other.params)

  def __hash__(self):
    return hash(self._facts)

  @property
  def _facts(self):
    """The values of the fields that are compared, except the parameters."""
    left_out = ("params", "reached")
    names = (field.name for field in dataclasses.fields(self) if field.name not in left_out)
    return tuple(getattr(self, name) for name in names)

  @property
  def prunes(self):
    """Whether it has thresholds."""
    return vit.prunes(self.params)

  @property
  def model(self):
    """The `VisionTransformer`, an `nnx.Module`; dense without thresholds."""
    checking.check_params(self.arch, self.params, self.budgets)
    network = self.at(self.budgets[0]) if self.budgets else self
    counts = network.counts[0] if network.counts else ()
    return vit.model(self.arch, network.params, dtype=jnp.dtype(self.dtype), counts=counts)

  @property
  def dense_gmacs(self):
    """GMACs per image without pruning, by the paper's count."""
    return complexity.dense_gmacs(self.arch)

  def gmacs(self, kept):
    """GMACs of images, from the number of patches kept.

    Args:
      kept: (..., stages) patch tokens that each stage keeps, `Outputs.kept`; (..., 0) for images
        that ran dense.

    Returns:
      (...) float64 NumPy array.
    """
    return complexity.cost(self.arch, checking.counts_of(self.arch, kept))

  def real_gmacs(self, kept):
    """As `gmacs`, but counts what is really computed; see `sparsity.complexity`."""
    return complexity.real_gmacs(self.arch, checking.counts_of(self.arch, kept))

  def default_execution(self):
    """The default execution: that of its speed-up, else packed if it prunes, else dense."""
    if not self.prunes:
      return "dense"
    return self.speedups[0].execution if self.speedups else "packed"

  def check_execution(self, execution, name="the network"):
    """Raises InputError if the network, called `name` in the message, has no such execution."""
    EXECUTIONS.check(execution)
    if execution != "dense" and not self.prunes:
      raise InputError(
        f"{name} has no thresholds to prune with: set them with --calibrate BUDGET "
        "(`Network.calibrate`), or run it with --execution dense"
      )
    if execution == "fixed" and not self.counts:
      raise InputError(
        f"{name} has no counts, the numbers of tokens that fixed execution keeps: use the mean, by "
        "--calibrate BUDGET (`Network.calibrate`) or evaluate.py --counts mean, or give one for "
        f"each of the {self.arch.stages} stages with --counts N,N,… (`Network.with_counts`)"
      )

  def __call__(self, images, execution=None, tokens=False):
    """Runs the network; compiled once for every shape of images and every execution.

    A call does not check that parameters and predictions are finite, as this would wait for the
    device: NaN parameters give NaN logits. Parameters are checked when weights are loaded and
    saved, predictions in evaluations and by `predict.py`.

    Args:
      images: (b, s, s, 3) uint8 pixels or normalised floats; or a list of such images or of PIL
        images; see `vit.images`.
      execution: a name of `EXECUTIONS`; by default `default_execution`: that of its speed-up if it
        was calibrated for one, else packed if it prunes, else dense.
      tokens: whether packed and fixed return the kept tokens, `Outputs.tokens` and `positions`, for
        heads of other tasks, and `sources`, from which `asvit_jax.unmerge` makes the grid of
        patches; dense and masked always do.

    Returns:
      `Outputs`.

    Raises:
      InputError: images of another shape or type, values that cannot be normalised pixels, or an
        execution that needs thresholds or counts.
    """
    execution = execution or self.default_execution()
    self.check_execution(execution)
    images = image_arrays.checked(images, self.arch, self.preprocessing)
    return _compiled(self.for_execution(execution), images, execution, bool(tokens))

  def apply(self, images, execution=None, tokens=False):
    """Like `__call__`, but not compiled, for use inside compiled functions.

    For traced images only the type and the shape are checked.
    """
    execution = execution or self.default_execution()
    self.check_execution(execution)
    images = image_arrays.checked(images, self.arch, self.preprocessing)
    return self._run(images, execution, tokens)

  @usual
  def _run(self, images, execution, tokens):
    images = image_arrays.normalized(images, self.preprocessing)
    return EXECUTIONS[execution](self.model, images, tokens)

  def stream(self, images, execution=None, pool=None, tokens=False):
    """Runs the network on any number of images, pool by pool; for throughput, not for latency.

    Every image gets the result of a call with that image alone, up to rounding. Images are read as
    they are needed, and at most three pools are in memory. The next pool is read while one runs.

    Args:
      images: as for a call; a directory, a file, or paths of files, which threads decode; or any
        iterable, of any length, of images (h, w, 3), PIL images, batches (b, h, w, 3), batches as
        `data.loader.eval_batches` yields them, or paths.
      execution: as for a call.
      pool: number of images that run at once; by default 1024 on accelerators, less for large
        networks, and on a CPU 32 groups of as many images as fit its cache. The last pool is padded
        to this number. If there are fewer images in all, it is the next power of two.
      tokens: as for a call; if False, dense and masked omit the tokens, too.

    Returns:
      Iterator of the `Outputs` of each pool, in order, as NumPy arrays without padding.

    Raises:
      InputError: as for a call, an invalid pool, one that exceeds the device's memory, or no
        images; and, while iterating, an item that is not an image or cannot be read, after the
        results of all pools before it.
    """
    return streaming.stream(self, images, execution, pool, tokens)

  def warm_up(self, batch_sizes=(1, 32), execution=None, tokens=False):
    """Compiles the programs of the given batch sizes, so that later calls need not compile.

    Args:
      batch_sizes: numbers of uint8 images; other numbers are compiled at their first call.
      execution: as for a call.
      tokens: as for a call.

    Raises:
      InputError: invalid or too large sizes, or an execution that needs thresholds.
    """
    for size in sizes.check_batches(batch_sizes):
      with streaming.enough_memory("batch size", size):
        images = np.zeros((size, *self.arch.image_shape), np.uint8)
        jax.block_until_ready(self(images, execution, tokens))

  def read(self, images):
    """Reads image files and prepares them for this network.

    Args:
      images: a directory, which is searched recursively, an image file, or any iterable of files.

    Returns:
      (n, height, width, 3) uint8.

    Raises:
      InputError: not a path, no images found, or an unreadable image.
    """
    return read_images(images, self.arch, self.preprocessing)

  def calibrate(self, images, budget=None, *, speedup=None, batch=None, seed=0, times=None):
    """Sets thresholds that meet a budget or a speed on the given images; no labels, no training.

    Args:
      images: as for a call, or batches as `data.loader.eval_batches` yields them.
      budget: share of the dense GMACs. Several shares give a network that runs `at` any budget in
        their range, and at the first one by default.
      speedup: in place of a budget, the speed on this device as a multiple of the dense network's,
        measured; or several, see `at_speedup`. docs/speed.md explains it.
      batch: images per batch that the speed is for, 32 by default.
      seed: seed of the batches for which times are predicted.
      times: times of the device that the speed is for, from `asvit_jax.estimated_times`; by default
        this device is measured.

    Returns:
      The `Network` with these thresholds, and with the mean numbers of patches that they keep as
      `counts`. Its `reached` says, for each budget or speed-up, how near the thresholds came.

    Raises:
      InputError: a budget or a speed that cannot be met, or invalid images, see `vit.images`.
    """
    return calibrating.calibrate(self, images, budget, speedup, batch, seed, times)

  def search(self, images, budget, trials=search.TRIALS, seed=0):
    """Searches for how strongly each stage should prune; no labels, no training.

    Args:
      images: as for `calibrate`.
      budget: share of the dense GMACs at which candidates are compared.
      trials: number of candidates.
      seed: seed of the search.

    Returns:
      The `Network` with the `stage_weights` found, whose thresholds must still be calibrated, and
      the `search.Found`. The network's `reached` says how near it came to the budget.

    Raises:
      InputError: a budget that cannot be met, invalid images, or an invalid number of trials.
    """
    return calibrating.search_weights(self, images, budget, trials, seed)

  def calibrator(self, images):
    """A `Calibrator` on images of the kinds that `calibrate` takes."""
    checking.check_not_traced("Network.calibrator")
    return calibration.Calibrator(self, images)

  def describe(self):
    """The description stored beside the parameters in weights, workdirs and artifacts, for JSON."""
    return {
      "variant": self.variant,
      "architecture": self.arch.to_json(),
      "preprocessing": self.preprocessing.to_json(),
      "classes": None if self.classes is None else list(self.classes),
    } | {
      name: list(map(form, value))
      for name, value, form in (
        ("budgets", self.budgets, float),
        ("counts", self.counts, list),
        ("speedups", self.speedups, speeds.Speed.to_json),
      )
      if value
    }

  def save(self, path, thresholds_as_metadata=False):
    """Writes a safetensors file that `load` reads without further arguments.

    Args:
      path: path of the file.
      thresholds_as_metadata: keeps thresholds out of the tensors, for timm; see `weights.saving`.

    Raises:
      InputError: the file cannot be written; its suffix belongs to another format, such as `.pth`;
        the parameters could not be loaded again, or are rounded, as those of `for_execution`.
    """
    checking.check_not_rounded(self.params)
    saving.save(path, self.params, self.describe(), thresholds_as_metadata, self.arch)

  def export(self, path, form, batch_sizes=None, budget=None, **options):
    """Writes and verifies an artifact for other programs; see `export.writing.export`."""
    numbers = writing.BATCH_SIZES if batch_sizes is None else batch_sizes
    return writing.export(self, path, form, numbers, budget, **options)


@functools.partial(jax.jit, static_argnames=("execution", "tokens"))
def _compiled(network, images, execution, tokens):
  return network._run(images, execution, tokens)
