"""`Network`, the object that a user holds: a vision transformer, dense or pruned."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asvit_jax import vit
from asvit_jax.config.model import PRUNING, architecture, preprocessing
from asvit_jax.core.errors import InputError
from asvit_jax.core.parts import check_trusted
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.sparsity import calibration, complexity
from asvit_jax.sparsity.executions import EXECUTIONS
from asvit_jax.weights import formats, saving
from asvit_jax.weights.adapting import adapt
from asvit_jax.weights.names import from_timm
from asvit_jax.weights.recognition import recognize

_CALIBRATION_BATCH = 64


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=["params"],
  meta_fields=["arch", "dtype", "preprocessing", "classes", "variant"],
)
@dataclasses.dataclass(frozen=True)
class Network:
  """A vision transformer with its parameters, and all that is needed to use them right.

  A pytree whose leaves are the parameters: it goes through `jax.jit`, `jax.device_put` and
  `jax.tree`. It does not change; what changes something returns another.

  Attributes:
    arch: the `Architecture`, with the stages at which it prunes or could.
    params: nested dictionary of float32 arrays; it prunes where `thresholds` are among them.
    dtype: compute type, "float32" or "bfloat16".
    preprocessing: what it expects of its images.
    classes: names by label, or None where they are not known.
    variant: name of the architecture, for people.
  """

  arch: vit.Architecture
  params: Any
  dtype: str = "float32"
  preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
  classes: tuple[str, ...] | None = None
  variant: str = ""

  @property
  def prunes(self):
    """Whether it has thresholds."""
    return vit.prunes(self.params)

  @property
  def model(self):
    """The `VisionTransformer`, an `nnx.Module`; dense without thresholds."""
    return vit.model(self.arch, self.params, dtype=jnp.dtype(self.dtype))

  @property
  def dense(self):
    """The same network without thresholds."""
    return self.with_params(vit.without_thresholds(self.params))

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
    return complexity.cost(self.arch, kept)

  def with_params(self, params):
    """The same network with other parameters."""
    return dataclasses.replace(self, params=params)

  def with_thresholds(self, thresholds):
    """The same network with other thresholds, (stages,)."""
    return self.with_params(self.params | {"thresholds": jnp.asarray(thresholds, jnp.float32)})

  def default_execution(self):
    """The execution that inference takes where none is asked for."""
    return "packed" if self.prunes else "dense"

  def check_execution(self, execution, name="the network"):
    """Raises InputError, which calls the network `name`, where it cannot run that way."""
    EXECUTIONS.check(execution)
    if execution != "dense" and not self.prunes:
      raise InputError(
        f"{name} has no thresholds to prune with: set them with --calibrate BUDGET "
        "(`Network.calibrate`), or run it with --execution dense"
      )

  def __call__(self, images, execution=None):
    """Runs it; compiled once for every shape of images and execution.

    Args:
      images: (b, s, s, 3) uint8, or floating and normalised.
      execution: of `EXECUTIONS`; by default packed where it prunes, else dense.

    Returns:
      `Outputs`.

    Raises:
      InputError: images of another shape, or an execution that needs thresholds.
    """
    return _compiled(self, images, execution or self.default_execution())

  def apply(self, images, execution=None):
    """`__call__` not compiled, for use inside of functions that are."""
    execution = execution or self.default_execution()
    self.check_execution(execution)
    expected = (self.arch.image_size, self.arch.image_size, 3)
    if images.ndim != 4 or images.shape[1:] != expected:
      raise InputError(
        f"images of shape {images.shape}: expected (b, {', '.join(map(str, expected))})"
      )
    if not jnp.issubdtype(images.dtype, jnp.floating):
      images = self.preprocessing.normalize(images)
    return EXECUTIONS[execution](self.model, images)

  def calibrate(self, images, budget):
    """Sets thresholds that meet a budget on the given images; no labels, no training.

    Args:
      images: (n, s, s, 3) uint8, or batches of them as `data.loader.eval_batches` gives them.
      budget: share of the dense GMACs.

    Returns:
      The `Network` with these thresholds.

    Raises:
      InputError: a budget that cannot be met.
    """
    batches = list(_batches(images)) if hasattr(images, "shape") else list(images)
    return self.with_thresholds(calibration.calibrate(self, batches, budget))

  def describe(self):
    """What goes beside the parameters into weight files, workdirs and artifacts, for JSON."""
    return {
      "variant": self.variant,
      "architecture": self.arch.to_json(),
      "preprocessing": self.preprocessing.to_json(),
      "classes": None if self.classes is None else list(self.classes),
    }

  def save(self, path, thresholds_as_metadata=False):
    """Writes a safetensors file that `load` reads without being told anything.

    Args:
      path: of the file.
      thresholds_as_metadata: keeps thresholds out of the tensors, for timm; see `weights.saving`.

    Raises:
      InputError: it cannot be written.
    """
    saving.save(path, self.params, self.describe(), thresholds_as_metadata)

  def export(self, path, form, batch_sizes=None, budget=None):
    """Writes an artifact that others run, verified; see `export.writing.export`."""
    from asvit_jax.export.writing import BATCH_SIZES, export

    sizes = BATCH_SIZES if batch_sizes is None else batch_sizes
    return export(self, path, form, sizes, budget)


def create(arch, *, seed=0, **fields):
  """A `Network` with random parameters.

  Args:
    arch: an `Architecture`, or a name of `vit.VARIANTS`.
    seed: of the parameters.
    **fields: others of `Network`.

  Raises:
    InputError: an unknown name.
  """
  if isinstance(arch, str):
    fields = {"variant": arch} | fields
    arch = _published(arch)
  return Network(arch, vit.initial_params(arch, seed=seed), **fields)


def load(source, arch=None, *, dtype="float32", resize=False, new_head=False):
  """A `Network` from weights of any format.

  Args:
    source: a file (safetensors, PyTorch), the workdir of a run, or `hf:OWNER/NAME`.
    arch: an `Architecture` or a name of `vit.VARIANTS`; not needed for what this package wrote, nor
      for weights of a published network.
    dtype: compute type, "float32" or "bfloat16".
    resize: interpolates the position embedding of another image size than `arch` has.
    new_head: starts a new head where `arch` has another number of classes.

  Raises:
    InputError: nothing there, a format that is not known, or weights that do not fit `arch`.
  """
  stored = formats.read(source)
  described = _described(stored, source)
  variant = stored.description.get("variant", "")
  if isinstance(arch, str):
    variant, arch = arch, _published(arch)
  if arch is None:
    if described is None:
      described, variant = recognize(stored.tensors, f"weights {source}")
    arch = described
  return _assemble(stored, source, arch, _preprocessing(stored), dtype, variant, resize, new_head)


def load_configured(source, config, *, resize=False, new_head=False):
  """The `Network` of a source as a config wants it.

  What the config leaves open, where and how to prune and the preprocessing, is the source's; where
  that says nothing either, the variant's and the defaults.

  Args:
    source: as in `load`.
    config: see `config.base`.
    resize: as in `load`.
    new_head: as in `load`.

  Raises:
    InputError: as in `load`; or the config and the source contradict each other.
  """
  stored = formats.read(source)
  described = _described(stored, source)
  arch = architecture(config, described)
  expected = preprocessing(config, _preprocessing(stored))
  return _assemble(
    stored, source, arch, expected, config.model.dtype, config.model.variant, resize, new_head
  )


def _published(name):
  """The `Architecture` of that name; raises InputError for one that is not known."""
  if name not in vit.VARIANTS:
    raise InputError(f"network {name!r} is not known: choose from {', '.join(vit.VARIANTS)}")
  return vit.VARIANTS[name]


def _assemble(stored, source, arch, expected, dtype, variant, resize, new_head):
  described = _described(stored, source)
  tensors = adapt(arch, stored.tensors, resize, new_head)
  prunes = any(name.startswith("score_predictor.") for name in tensors)
  if described is not None:
    _check_same(arch, described, source, prunes, resize, new_head)
  params = from_timm(arch if prunes else arch.dense, tensors, f"weights {source}")
  classes = stored.description.get("classes")
  if classes is not None and len(classes) != arch.classes:
    classes = None
  classes = None if classes is None else tuple(classes)
  return Network(arch, params, dtype, expected, classes, variant)


def _described(stored, source):
  """The `Architecture` that a source says it is of, or None."""
  values = stored.description.get("architecture")
  if values is None:
    return None
  arch = vit.Architecture.from_json(values, f"weights {source}")
  for part in (arch.stem, arch.attention, arch.score, arch.reduction):
    check_trusted(part, f"weights {source}")
  return arch


def _preprocessing(stored):
  return Preprocessing.from_json(stored.description.get("preprocessing", {}))


def _check_same(arch, described, source, prunes, resize, new_head):
  """Raises InputError where weights say that they are of another network than they are loaded as.

  Shapes of tensors would not tell the number of heads, or the blocks that thresholds are for.
  """
  free = {"image_size"} if resize else set()
  free |= {"classes"} if new_head else set()
  free |= set() if prunes else set(PRUNING)
  fields = [field.name for field in dataclasses.fields(arch) if field.name not in free]
  differ = [f for f in fields if getattr(arch, f) != getattr(described, f)]
  if differ:
    listed = "; ".join(f"{f} {getattr(described, f)!r}, not {getattr(arch, f)!r}" for f in differ)
    raise InputError(
      f"weights {source} does not fit this model: it says that it has {listed}; leave these to the "
      "weights, or take others (another image size or another number of classes is taken when "
      "asked for: resize, new_head)"
    )


def _batches(images):
  for start in range(0, len(images), _CALIBRATION_BATCH):
    part = np.asarray(images[start : start + _CALIBRATION_BATCH])
    missing = min(_CALIBRATION_BATCH, len(images)) - len(part)
    padded = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
    yield {"image": padded, "valid": np.arange(len(padded)) < len(part)}


@functools.partial(jax.jit, static_argnames="execution")
def _compiled(network, images, execution):
  return network.apply(images, execution)
