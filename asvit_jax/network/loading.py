"""Creates networks: with random parameters, or from weights of any format."""

import dataclasses

import numpy as np

from asvit_jax import vit
from asvit_jax.config import parts as config_parts
from asvit_jax.config.model import PRUNING, architecture, preprocessing
from asvit_jax.core.errors import InputError
from asvit_jax.core.nearest import hint
from asvit_jax.core.parts import typed
from asvit_jax.core.printable import shown
from asvit_jax.core.progress import log
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network.checking import fixed_counts_of
from asvit_jax.network.network import Network
from asvit_jax.pacing import speeds
from asvit_jax.sparsity.attentions import ATTENTIONS
from asvit_jax.sparsity.reductions import REDUCTIONS
from asvit_jax.sparsity.scores import SCORES
from asvit_jax.vit.stems import STEMS
from asvit_jax.weights import formats
from asvit_jax.weights.adapting import HEADS, adapt
from asvit_jax.weights.names import check_fits, from_timm
from asvit_jax.weights.recognition import outputs_of, recognize
from asvit_jax.weights.texts import check_features


def create(arch, *, seed=0, **fields):
  """A `Network` with random parameters.

  Args:
    arch: an `Architecture`, or a name of `vit.VARIANTS`.
    seed: seed of the parameters.
    **fields: other fields of `Network`.

  Raises:
    InputError: an unknown name, or no architecture.
  """
  if isinstance(arch, str):
    fields = {"variant": arch} | fields
    arch = _published(arch)
  if not isinstance(arch, vit.Architecture):
    raise InputError(
      f"arch {shown(arch)}: expected an Architecture, or the name of one, such as 'deit_s'"
    )
  return Network(arch, vit.initial_params(arch, seed=seed), **fields)


def load(
  source,
  arch=None,
  *,
  dtype="float32",
  image_size=None,
  resize=False,
  new_head=False,
  classes=None,
  key="",
  step="",
  weights_of="",
  parts=(),
):
  """Loads a `Network` from weights of any format.

  Args:
    source: a file (safetensors, PyTorch, Google's .npz), a directory in the Hugging Face hub's
      layout, the workdir of a run, or `hf:OWNER/NAME`; docs/weights.md lists them all.
    arch: an `Architecture` or a name of `vit.VARIANTS`; not needed for files that this package
      wrote, nor for weights of a published network.
    dtype: compute type, "float32" or "bfloat16".
    image_size: side of the images, or (height, width), in pixels, instead of `arch`'s; the position
      embedding is then interpolated.
    resize: interpolates the position embedding of another image size than `arch` has.
    new_head: starts a new head if `arch` has another number of classes, or the source no head.
    classes: in place of `arch`, the number of classes of a new head.
    key: selects one of several networks in the source: "model_ema", "teacher".
    step: step of a run: "latest" (or ""), "best" or a number; see `run.choice.check`.
    weights_of: weights of a run: "ema", "raw" or "best"; "" takes the averaged ones if the run
      averages.
    parts: names of your own parts, `package.module:object`, that the source may name; they are
      imported. Opening a file runs no other code.

  Raises:
    InputError: a missing source, an unknown format, weights that do not fit `arch`, or a source
      that names code outside of this package that is not in `parts`.
  """
  parts = typed(parts)
  stored = formats.read(source, key, step, weights_of, parts)
  described = _described(stored, source, parts)
  variant = stored.description.get("variant", "")
  if isinstance(arch, str):
    variant, arch = arch, _published(arch)
  elif arch is None and described is not None:
    arch = described
  elif arch is None:
    arch, variant = recognize(stored, f"weights {source}", classes if new_head else None)
  if classes is not None:
    own = {"head": "classifier", "text_width": 0} if new_head else {}
    arch = dataclasses.replace(arch, classes=classes, **own)
  if image_size is not None:
    arch, resize = dataclasses.replace(arch, image_size=image_size), True
  network = Network.without_params(arch, dtype, _preprocessing(stored, source), variant)
  return _filled(network, stored, described, source, resize, new_head)


def load_configured(
  source,
  plan,
  *,
  resize=False,
  new_head=False,
  key="",
  step="",
  weights_of="",
  parts=(),
  form=None,
  texts=None,
):
  """Loads the `Network` that a plan describes from a source.

  Values that the plan's config leaves open (where and how to prune, and the preprocessing) come
  from the source, else from the variant and the defaults.

  Args:
    source: as in `load`.
    plan: a `Plan`. The source may name the same parts of your own as its config.
    resize: as in `load`.
    new_head: as in `load`.
    key: as in `load`.
    step: as in `load`.
    weights_of: as in `load`.
    parts: as in `load`, in addition to those of the plan.
    form: a name of `weights.formats.FORMATS`, if the user gave the source's format.
    texts: as for `Network.zero_shot`, or None; the plan's classes are then those of the texts.

  Raises:
    InputError: as in `load`; or the plan and the source contradict each other.
  """
  parts = typed(parts) | config_parts.own(plan.given)
  stored = formats.read(source, key, step, weights_of, parts, form)
  described = _described(stored, source, parts)
  facts = stored.usual | stored.facts if described is None else vars(described)
  facts = facts | ({"head": "classifier", "text_width": 0} if new_head else {})
  model = plan.model if texts is None else _of_images(plan.model, stored, facts, source)
  arch = architecture(model, facts)
  expected = preprocessing(plan.data, _preprocessing(stored, source, plan))
  network = Network.without_params(arch, model.dtype, expected, model.variant)
  network = _filled(network, stored, described, source, resize, new_head)
  return network if texts is None else network.zero_shot(texts)


def _of_images(model, stored, facts, source):
  """The `config.model.Model` with the number of classes, or of features, that the source has.

  Raises:
    InputError: the source is a classifier.
  """
  check_features(facts.get("head", "none"), f"weights {source}")
  width = np.shape(stored.tensors.get("patch_embed.proj.weight", ()))[:1]
  count = facts.get("classes") or outputs_of(stored.tensors) or sum(width)
  return dataclasses.replace(model, given={**model.given, "classes": count})


def _published(name):
  """The `Architecture` of that name; raises InputError for an unknown name."""
  if name not in vit.VARIANTS:
    known = ", ".join(vit.VARIANTS)
    raise InputError(
      f"network {name!r} is not known: choose from {known}{hint(name, vit.VARIANTS)}"
    )
  return vit.VARIANTS[name]


def _filled(network, stored, described, source, resize, new_head):
  """The `Network` with a source's parameters, class names, budgets, counts and speed-ups."""
  arch, name = network.arch, f"weights {source}"
  if described is not None:  # the file states facts that the tensors do not show
    facts = {"image_size": described.image_size} | stored.facts
    stored = dataclasses.replace(stored, facts=facts)
  prunes = any(tensor.startswith("score_predictor.") for tensor in stored.tensors)
  if described is not None:
    _check_same(arch, described, source, prunes, resize, new_head)
  if stored.facts.get("heads", arch.heads) != arch.heads:  # the tensors' shapes do not show heads
    raise InputError(
      f"{name} does not fit this model: it has {stored.facts['heads']} heads, not {arch.heads}; "
      "choose its model.variant, or set model.heads"
    )
  for field in ("activation", "pool"):  # nor these
    if (stated := stored.stated.get(field, getattr(arch, field))) != getattr(arch, field):
      raise InputError(
        f"{name} does not fit this model: it has {field} {stated!r}, not {getattr(arch, field)!r}, "
        f"as the config beside it states; set model.{field} to match it"
      )
  if described is None:
    _check_rope(arch, stored.facts, name)
  # A network without thresholds has no budgets, whatever its file says.
  budgets = tuple(stored.description.get("budgets", ())) if prunes else ()
  paced = speeds.from_description(stored.description, name, len(budgets) or 1) if prunes else ()
  if described is None or described.image_size != arch.image_size:
    paced = ()  # speed-ups hold for one image size
  if described is not None:  # before memory is taken for the sizes that a file claims
    own = described if prunes else described.dense
    headless = new_head and "head.weight" not in stored.tensors
    check_fits(own, stored.tensors, name, len(budgets), stored.family, HEADS if headless else ())
  tensors = adapt(arch, stored, resize, new_head, name)
  of = arch if prunes else arch.dense
  params = from_timm(of, tensors, name, len(budgets), stored.family)
  classes = stored.description.get("classes")
  if classes is not None and not new_head and len(classes) != arch.classes:
    raise InputError(
      f"{name} has {arch.classes} classes, but {len(classes)} class names (id2label or "
      "label_names, if there is a config.json beside it): correct the names, or remove them"
    )
  if classes is not None and len(classes) != arch.classes:
    classes = None
  classes = None if classes is None else tuple(classes)
  counts = _counts(stored, described, arch, budgets, name) if prunes else ()
  return dataclasses.replace(
    network, params=params, classes=classes, budgets=budgets, counts=counts, speedups=paced
  )


def _check_rope(arch, facts, name):
  """Raises InputError for other rotary positions than the weights have; no tensor shows them."""
  for field in ("rope", "rope_base", "rope_grid"):
    theirs, ours = facts.get(field, getattr(arch, field)), getattr(arch, field)
    if theirs != ours:
      raise InputError(
        f"{name} does not fit this model: its {field} is {theirs!r}, not {ours!r}; leave "
        f"model.{field} open, or use other weights"
      )


def _counts(stored, described, arch, budgets, name):
  """The source's counts; () for another number of patches, whose counts do not apply."""
  of = arch if described is None else described
  try:
    found = fixed_counts_of(of, stored.description.get("counts", ()), budgets)
  except InputError as error:
    raise InputError(f"{name}: {error}") from error
  if found and of.patches != arch.patches:
    log(
      f"{name} has counts for fixed execution of {of.patches} patches, but an image has "
      f"{arch.patches} now: calibrate again, or give --counts, to run it fixed"
    )
    return ()
  return found


def _described(stored, source, parts):
  """The `Architecture` in a source's description, or None."""
  values = stored.description.get("architecture")
  if values is None:
    return None
  arch = vit.Architecture.from_json(values, f"weights {source}", parts)
  for table, name in (
    (STEMS, arch.stem),
    (ATTENTIONS, arch.attention),
    (SCORES, arch.score),
    (REDUCTIONS, arch.reduction),
  ):
    try:
      table.check(name)
    except InputError as error:
      raise InputError(f"weights {source}: {error}") from error
  return arch


def _preprocessing(stored, source, plan=None):
  """The preprocessing of the weights; if it is assumed from the family, the log states it."""
  found = Preprocessing.from_json(stored.description.get("preprocessing", {}), f"weights {source}")
  if stored.assumes and (plan is None or plan.data.mean is None):
    taken = ", ".join(f"{key} {value}" for key, value in vars(found).items())
    log(
      f"weights {source} does not state its preprocessing; that of {stored.family} is assumed: "
      f"{taken} (config.data.mean and so on set it)"
    )
  return found


def _check_same(arch, described, source, prunes, resize, new_head):
  """Raises InputError if the weights' description contradicts the requested architecture.

  The shapes of tensors show neither the number of heads nor the blocks of the thresholds.
  """
  free = {"image_size"} if resize else set()
  free |= {"classes", "head", "text_width"} if new_head else set()
  free |= set() if prunes else set(PRUNING)
  fields = [field.name for field in dataclasses.fields(arch) if field.name not in free]
  differ = [f for f in fields if getattr(arch, f) != getattr(described, f)]
  if differ:
    listed = "; ".join(f"{f} {getattr(described, f)!r}, not {getattr(arch, f)!r}" for f in differ)
    raise InputError(
      f"weights {source} does not fit this model: it has {listed}; leave these keys open, or use "
      "other weights (init_resize accepts another image size, init_new_head another number of "
      "classes)"
    )
