"""`Network`, the object that a user holds: a vision transformer, dense or pruned."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from asvit_jax import vit
from asvit_jax.core.errors import InputError
from asvit_jax.core.promotion import usual
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import calibrating, checking, reading, warming
from asvit_jax.network.changing import Changing
from asvit_jax.network.comparing import Compared
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
class Network(Changing, Compared):
  """A vision transformer with its parameters, and all that is needed to use them right.

  A pytree whose leaves are the parameters: it goes through `jax.jit`, `jax.device_put` and
  `jax.tree`. It does not change; what changes something returns another. Networks are equal where
  all of this is, arrays by their values; their hash leaves the parameters out.

  Attributes:
    arch: the `Architecture`, with the stages at which it prunes or could.
    params: nested dictionary of float32 arrays; it prunes where `thresholds` are among them.
    dtype: compute type, "float32" or "bfloat16".
    preprocessing: what it expects of its images.
    classes: names by label, or None where they are not known.
    variant: name of the architecture, for people.
    budgets: shares of the dense GMACs, where it has a row of thresholds for each of several; it
      runs at the first of them, `at` another. () where it has one set of thresholds, or none.
    counts: patches that each stage keeps of every image in fixed execution: one row of them, or one
      for each of `budgets`; () where they are not known.
    speedups: the `Speed` of each row of thresholds, where it was calibrated for speeds; else ().
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

  def __post_init__(self):
    """Raises InputError for what is no field of a network; of parameters, calls look at it."""
    for name, value in checking.fields_of(self).items():
      object.__setattr__(self, name, value)

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
    """GMACs of an image without pruning, as the paper counts them."""
    return complexity.dense_gmacs(self.arch)

  def gmacs(self, kept):
    """GMACs of images by what was kept of them.

    Args:
      kept: (..., stages) patch tokens that each stage keeps, `Outputs.kept`; (..., 0) where dense.

    Returns:
      (...) float64 NumPy array.
    """
    return complexity.cost(self.arch, checking.counts_of(self.arch, kept))

  def real_gmacs(self, kept):
    """As `gmacs`, but what is really computed; see `sparsity.complexity`."""
    return complexity.real_gmacs(self.arch, checking.counts_of(self.arch, kept))

  def default_execution(self):
    """The execution of inference where none is asked for: that of its speed-up, packed or dense."""
    return calibrating.default_execution(self)

  def check_execution(self, execution, name="the network"):
    """Raises InputError, which calls the network `name`, where it cannot run that way."""
    EXECUTIONS.check(execution)
    if execution != "dense" and not self.prunes:
      raise InputError(
        f"{name} has no thresholds to prune with: set them with --calibrate BUDGET "
        "(`Network.calibrate`), or run it with --execution dense"
      )
    if execution == "fixed" and not self.counts:
      raise InputError(
        f"{name} does not say how many tokens fixed execution shall keep of every image: let it "
        "count the mean with --calibrate BUDGET (`Network.calibrate`) or evaluate.py --counts "
        f"mean, or give one for each of the {self.arch.stages} stages with --counts N,N,… "
        "(`Network.with_counts`)"
      )

  def __call__(self, images, execution=None, tokens=False):
    """Runs it; compiled once for every shape of images and execution.

    Whether parameters are finite is looked at where weights are loaded and saved, and of
    predictions in evaluations and by `predict.py`; here it would wait for the device: of parameters
    that are NaN, logits are, too.

    Args:
      images: (b, s, s, 3) uint8 pixels, or floats that are normalised; a list of such images, or of
        PIL images, does, too; see `vit.images`.
      execution: of `EXECUTIONS`; by default `default_execution`: packed where it prunes, that of
        its speed-up where it was calibrated for one, else dense.
      tokens: whether packed and fixed shall return the kept tokens, `Outputs.tokens` and
        `positions`, for heads of other tasks; dense and masked always do.

    Returns:
      `Outputs`.

    Raises:
      InputError: images of another shape or type, values that cannot be normalised pixels, or an
        execution that needs thresholds, or counts.
    """
    execution = execution or self.default_execution()
    self.check_execution(execution)
    images = image_arrays.checked(images, self.arch, self.preprocessing)
    return _compiled(self.for_execution(execution), images, execution, bool(tokens))

  def apply(self, images, execution=None, tokens=False):
    """`__call__` not compiled, for use inside of functions that are.

    Of traced images the type and the shape are checked, their values are not known.
    """
    execution = execution or self.default_execution()
    self.check_execution(execution)
    images = image_arrays.checked(images, self.arch, self.preprocessing)
    return self._run(images, execution, tokens)

  @usual
  def _run(self, images, execution, tokens):
    images = image_arrays.normalized(images, self.preprocessing)
    return EXECUTIONS[execution](self.model, images, tokens)

  def warm_up(self, batch_sizes=(1, 32), execution=None, tokens=False):
    """Compiles what calls with so many uint8 images run, so that none of them compiles anything.

    Args:
      batch_sizes: numbers of images; a call with another number compiles when it comes.
      execution: as for a call.
      tokens: as for a call.

    Raises:
      InputError: sizes that are none, or too large, or an execution that needs thresholds.
    """
    warming.warm_up(self, batch_sizes, execution, tokens)

  def read(self, images):
    """Image files as it expects them.

    Args:
      images: a directory, searched with all below it, an image file, or any iterable of files.

    Returns:
      (n, height, width, 3) uint8.

    Raises:
      InputError: no paths, no images there, or one that cannot be read.
    """
    return reading.read(images, self.arch, self.preprocessing)

  def calibrate(self, images, budget=None, *, speedup=None, batch=None, seed=0, times=None):
    """Sets thresholds that meet a budget, or a speed, on the given images; no labels, no training.

    Args:
      images: as for a call, or batches of them as `data.loader.eval_batches` gives them.
      budget: share of the dense GMACs; or several of them, for a network that runs `at` any budget
        between, and at the first where none is asked for.
      speedup: instead, how many times as fast as dense it shall run on this device, measured; or
        several, see `at_speedup`. docs/speed.md says how.
      batch: images a batch that the speed is for, 32 by default.
      seed: of the batches that times are predicted for.
      times: of the device that the speed is for, of `asvit_jax.estimated_times`; by default this
        one, which is measured.

    Returns:
      The `Network` with these thresholds, and the mean of what they keep as `counts`.

    Raises:
      InputError: what cannot be met, or images that are none, see `vit.images`.
    """
    return calibrating.calibrate(self, images, budget, speedup, batch, seed, times)

  def search(self, images, budget, trials=search.TRIALS, seed=0):
    """Looks for how hard each stage should cut; no labels, no training.

    Args:
      images: as for `calibrate`.
      budget: share of the dense GMACs that is searched at.
      trials: number of candidates.
      seed: of the search.

    Returns:
      The `Network` with these `stage_weights`, whose thresholds are still to be calibrated, and
      what was `search.Found`.

    Raises:
      InputError: a budget that cannot be met, images that are none, or no number of trials.
    """
    return calibrating.search_weights(self, images, budget, trials, seed)

  def calibrator(self, images):
    """A `Calibrator` on images, as for `calibrate`."""
    checking.check_not_traced("Network.calibrator")
    return calibration.Calibrator(self, images)

  def describe(self):
    """What goes beside the parameters into weight files, workdirs and artifacts, for JSON."""
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
    """Writes a safetensors file that `load` reads without being told anything.

    Args:
      path: of the file.
      thresholds_as_metadata: keeps thresholds out of the tensors, for timm; see `weights.saving`.

    Raises:
      InputError: it cannot be written; its suffix is another format's, as `.pth`; or parameters
        that could not be loaded.
    """
    saving.save(path, self.params, self.describe(), thresholds_as_metadata, self.arch)

  def export(self, path, form, batch_sizes=None, budget=None, **options):
    """Writes an artifact that others run, verified; see `export.writing.export`."""
    from asvit_jax.export.writing import BATCH_SIZES, export

    numbers = BATCH_SIZES if batch_sizes is None else batch_sizes
    return export(self, path, form, numbers, budget, **options)


@functools.partial(jax.jit, static_argnames=("execution", "tokens"))
def _compiled(network, images, execution, tokens):
  return network._run(images, execution, tokens)
