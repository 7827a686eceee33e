"""What `config.json` and `preprocessor_config.json` of the hub say of weights."""

import dataclasses
import json
import math

from asvit_jax.core import sizes, storage
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import CROP_MODES, INTERPOLATIONS
from asvit_jax.weights.families.refused import refuse

NAMES = ("config.json", "preprocessor_config.json")
# PIL's numbers of its filters.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_MODELS = ("vit", "deit", "vit_mae", "vit_msn", "dinov2")


def applied(stored, directory, source):
  """`Stored` with what the configs in a directory say; as it is where there are none of the hub's.

  Args:
    stored: `Stored`.
    directory: where they may be.
    source: the weights, for errors.

  Raises:
    InputError: a damaged file, or a network that does not fit the blocks here.
  """
  config, processor = (_read(directory, name) for name in NAMES)
  if "pretrained_cfg" in config or {"architecture", "num_features"} <= config.keys():
    facts, description = _timms(config, source)
  elif "model_type" in config:
    facts, description = _theirs(config, processor, source)
  else:
    return stored
  return dataclasses.replace(
    stored, facts=stored.facts | facts, description=description | stored.description
  )


def _read(directory, name):
  path = storage.path(directory) / name
  if not path.is_file():
    return {}
  try:
    content = json.loads(storage.read(path))
  except ValueError as error:
    raise InputError(f"{path} is not JSON ({error}): fetch it again") from error
  return content if isinstance(content, dict) else {}


def _timms(config, source):
  """({fact: value}, description) of timm's config."""
  described, arguments = config.get("pretrained_cfg") or {}, config.get("model_args") or {}
  pool = arguments.get("global_pool", config.get("global_pool", "token"))
  if pool not in ("token", ""):
    refuse(source, f"a network whose global_pool is {pool!r}", "here the class token predicts")
  activation = arguments.get("act_layer", "gelu")
  if activation != "gelu" or "quickgelu" in config.get("architecture", ""):
    refuse(source, f"a network of activation {activation}", "its MLPs have another activation")
  facts = {}
  size = arguments.get("img_size") or (described.get("input_size") or [])[1:]
  if size:
    facts["image_size"] = sizes.plain(size)
  if "num_heads" in arguments:
    facts["heads"] = arguments["num_heads"]
  preprocessing = {
    "crop_ratio": described.get("crop_pct"),
    "mean": described.get("mean"),
    "std": described.get("std"),
    "interpolation": described.get("interpolation"),
    "crop_mode": described.get("crop_mode"),
  }
  names = config.get("label_names") or described.get("label_names")
  return facts, _description(preprocessing, names, source)


def _theirs(config, processor, source):
  """({fact: value}, description) of transformers' configs."""
  kind, activation = config["model_type"], config.get("hidden_act", "gelu")
  if kind not in _MODELS:
    refuse(source, f"a network of model_type {kind!r}", f"expected one of {', '.join(_MODELS)}")
  if activation != "gelu":
    refuse(source, f"a network of activation {activation!r}", "its MLPs have another activation")
  facts = {}
  if "num_attention_heads" in config:
    facts["heads"] = config["num_attention_heads"]
  if "layer_norm_eps" in config:
    facts["norm_epsilon"] = config["layer_norm_eps"]
  if "image_size" in config:
    facts["image_size"] = sizes.plain(config["image_size"])
  labels = {int(k): v for k, v in (config.get("id2label") or {}).items()}
  names = [labels.get(i) for i in range(len(labels))]
  if all(name == f"LABEL_{i}" for i, name in enumerate(names)):  # nobody has named them
    names = None
  return facts, _description(_of_processor(processor, source), names, source)


def _of_processor(processor, source):
  """The fields of `Preprocessing`, None for what it does not say."""
  if not processor:
    return {}
  size, crop = processor.get("size"), processor.get("crop_size")
  fields = {"mean": processor.get("image_mean"), "std": processor.get("image_std")}
  if "resample" in processor:
    fields["interpolation"] = _interpolation(processor["resample"], source)
  if not processor.get("do_resize", True) or size is None:
    return fields
  if isinstance(size, dict) and "shortest_edge" in size:
    fields["crop_mode"], resized = "center", size["shortest_edge"]
  else:  # a number is both sides, too
    fields["crop_mode"] = "squash"
    resized = (
      min(size["height"], size["width"]) if isinstance(size, dict) else sizes.height_width(size)[0]
    )
  cropped = resized
  if processor.get("do_center_crop") and crop:
    cropped = min(crop.values()) if isinstance(crop, dict) else sizes.height_width(crop)[0]
  if "crop_pct" in processor:  # ConvNeXt's way to say it
    cropped = math.floor(resized * processor["crop_pct"])
  fields["crop_ratio"] = min(1.0, cropped / resized)
  return fields


def _interpolation(resample, source):
  if isinstance(resample, int) and 0 <= resample < len(_FILTERS):
    return _FILTERS[resample]
  raise InputError(f"{source}: resample {resample!r} of its preprocessor_config.json is not known")


def _description(preprocessing, names, source):
  given = {k: v for k, v in preprocessing.items() if v is not None}
  for key, known in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
    if given.get(key, known[0]) not in known:
      raise InputError(
        f"{source}: {key} {given[key]!r} of its config is not known: choose one of "
        f"{', '.join(known)} with config.data.{key}, after taking it out of its config.json"
      )
  description = {"preprocessing": given} if given else {}
  return description | ({"classes": list(names)} if names and all(names) else {})
