"""Reads the configs of the Hugging Face hub: of transformers, timm and OpenCLIP."""

import dataclasses

from asvit_jax.core import schema, sizes, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import log
from asvit_jax.data.preprocessing import CROP_MODES, INTERPOLATIONS, LEAST_CROP_RATIO
from asvit_jax.vit.fields import LEAST_EPSILON
from asvit_jax.weights.families.refused import refuse
from asvit_jax.weights.formats import labels, processor

NAMES = ("config.json", processor.NAME, "open_clip_config.json")
# {a library's name: ours}.
_ACTIVATIONS = {
  **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
  **dict.fromkeys(("quick_gelu", "quickgelu"), "quick_gelu"),
  **dict.fromkeys(("gelu_tanh", "gelu_pytorch_tanh", "gelu_new"), "gelu_tanh"),
}
_POOLS = ("token", "", "avg", "map")  # timm's; "" is the class token
# Keys whose integers may be written as 32.0.
_WHOLE = ("image_size", "num_attention_heads", "img_size", "num_heads", "input_size")
_TOWERS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model")
_MODELS = ("vit", "deit", "vit_mae", "vit_msn", "dinov2", "dinov2_with_registers", *_TOWERS)

_SIDE = schema.integer(1, 1 << 16)
_SIZE = schema.either(_SIDE, schema.array(_SIDE, 2, 2))
_SIDES = schema.table({"height": _SIDE, "width": _SIDE}, ("height", "width"), others=False)
_HEADS = schema.integer(1, 4096)
_SHORT = schema.text(256)
_CHANNELS = schema.array(schema.number(), 3, 3)
_TIMM = schema.table(
  {
    "architecture": _SHORT,
    "global_pool": _SHORT,
    "label_names": labels.SCHEMA,
    "model_args": schema.table(
      {
        "img_size": _SIZE,
        "num_heads": _HEADS,
        "global_pool": _SHORT,
        "act_layer": _SHORT,
        "pool_include_prefix": schema.BOOLEAN,
      }
    ),
    "pretrained_cfg": schema.table(
      {
        "input_size": schema.array(_SIDE, 3, 3),
        "crop_pct": schema.number(LEAST_CROP_RATIO, 1),
        "mean": _CHANNELS,
        "std": _CHANNELS,
        "interpolation": _SHORT,
        "crop_mode": _SHORT,
        "label_names": labels.SCHEMA,
      }
    ),
  }
)
_TRANSFORMERS = schema.table(
  {
    "model_type": _SHORT,
    "hidden_act": _SHORT,
    "num_attention_heads": _HEADS,
    "layer_norm_eps": schema.number(LEAST_EPSILON, 0.1),
    "image_size": schema.either(_SIZE, _SIDES),
    "id2label": labels.SCHEMA,
    "label2id": labels.SCHEMA,
    "vision_config": schema.table(),
    "architectures": schema.array(_SHORT, most=16),
  }
)
_OPENCLIP = schema.table(
  {
    "model_cfg": schema.table(
      {
        "quick_gelu": schema.BOOLEAN,
        "vision_cfg": schema.table(
          {"image_size": _SIZE, "width": _HEADS, "head_width": _HEADS, "pool_type": _SHORT}
        ),
      },
      ("vision_cfg",),
    ),
    "preprocess_cfg": schema.table(
      {"mean": _CHANNELS, "std": _CHANNELS, "interpolation": _SHORT, "resize_mode": _SHORT}
    ),
  },
  ("model_cfg",),
)


def applied(stored, directory, source):
  """`Stored` with the values of the hub's configs in a directory; unchanged if there are none.

  Args:
    stored: `Stored`.
    directory: directory that may contain configs.
    source: the weights, for errors.

  Raises:
    InputError: a damaged file, values of another type, unsupported preprocessing, or a network with
      unsupported blocks.
  """
  config = _read(directory, NAMES[0])
  if "pretrained_cfg" in config or {"architecture", "num_features"} <= config.keys():
    facts, description = _timms(config, source)
  elif "model_type" in config:
    facts, description = _theirs(config, _read(directory, NAMES[1], schema.table()), source)
  elif "model_cfg" in (opened := _read(directory, NAMES[2])):
    facts, description = _openclips(opened, source)
  else:
    return stored
  return dataclasses.replace(
    stored, facts=stored.facts | facts, description=description | stored.description
  )


def _read(directory, name, form=schema.ANY):
  """The content of a file without nulls; {} if there is no file, or it holds no object."""
  path = storage.path(directory) / name
  if not path.is_file():
    return {}
  try:
    content = storage.read(path, schema.MOST_BYTES)
  except OSError as error:
    raise InputError(f"{path} cannot be read ({error}): fetch it again") from error
  content = schema.loads(content, form, str(path), "fetch it again")
  return _said(content) if isinstance(content, dict) else {}


def _said(content):
  """The content without keys whose value is null."""
  if not isinstance(content, dict):
    return content
  return {key: _said(value) for key, value in content.items() if value is not None}


def _timms(config, source):
  """({fact: value}, description) from timm's config."""
  for key in ("model_args", "pretrained_cfg"):
    if isinstance(config.get(key), dict):
      config = config | {key: processor.in_whole_numbers(config[key], _WHOLE)}
  schema.check(config, _TIMM, f"{source}: its config.json")
  described, arguments = config.get("pretrained_cfg", {}), config.get("model_args", {})
  pool = arguments.get("global_pool", config.get("global_pool", "token"))
  if pool not in _POOLS:
    refuse(
      source, f"a network whose global_pool is {pool!r}", "expected token, avg or map as pooling"
    )
  if arguments.get("pool_include_prefix"):
    refuse(source, "a network with pool_include_prefix", "its mean includes the class token")
  quick = "quickgelu" in config.get("architecture", "")
  activation = arguments.get("act_layer", "quick_gelu" if quick else "gelu")
  facts = {"activation": _activation(activation, source)}
  if pool and (arguments.get("global_pool") or config.get("global_pool")):
    facts["pool"] = pool
  size = arguments.get("img_size") or described.get("input_size", [])[1:]
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
  key = "label_names"
  names = labels.names(config.get(key, described.get(key)), key, source)
  return facts, _description(preprocessing, names, source)


def _theirs(config, steps, source):
  """({fact: value}, description) from transformers' configs."""
  kind = config["model_type"]
  if isinstance(kind, str) and kind not in _MODELS:  # their configs have other keys
    kind = on_a_line(kind[:60])
    refuse(source, f"a network of model_type {kind!r}", f"expected one of {', '.join(_MODELS)}")
  config = processor.in_whole_numbers(config, _WHOLE)
  schema.check(config, _TRANSFORMERS, f"{source}: its config.json")
  facts = {}
  if kind in _TOWERS:
    # The values of the image tower stand apart in a config of both towers. Left out they are
    # transformers' own: 12 heads, and the activation of the family.
    tower = processor.in_whole_numbers(config.get("vision_config", config), _WHOLE)
    tower = {k: v for k, v in tower.items() if k not in ("id2label", "label2id")}
    outer = ["quantization_config"]
    if any("ForImageClassification" in str(name) for name in config.get("architectures", ())):
      outer += ["id2label", "label2id"]  # a tower's own have no meaning
    config = {key: config[key] for key in outer if key in config} | tower
    schema.check(config, _TRANSFORMERS, f"{source}: its config.json")
    facts["heads"] = 12
    if "hidden_act" in config:
      facts["activation"] = _activation(config["hidden_act"], source)
  else:
    facts["activation"] = _activation(config.get("hidden_act", "gelu"), source)
  if config.get("quantization_config"):
    raise InputError(
      f"{source} is quantised, as quantization_config of its config.json says: give the weights in "
      "float32, float16 or bfloat16"
    )
  if "num_attention_heads" in config:
    facts["heads"] = config["num_attention_heads"]
  if "layer_norm_eps" in config:
    facts["norm_epsilon"] = config["layer_norm_eps"]
  if "image_size" in config:
    size = config["image_size"]
    size = (size["height"], size["width"]) if isinstance(size, dict) else size
    facts["image_size"] = sizes.plain(size)
  names = labels.names(config.get("id2label"), "id2label", source)
  labels.check_inverse(names, config.get("label2id"), source)
  return facts, _description(processor.fields(steps, source), names, source)


def _openclips(config, source):
  """({fact: value}, description) from OpenCLIP's config."""
  schema.check(config, _OPENCLIP, f"{source}: its {NAMES[2]}")
  model, steps = config["model_cfg"], config.get("preprocess_cfg", {})
  vision = model["vision_cfg"]
  if vision.get("pool_type", "tok") != "tok":
    refuse(source, f"a network of pool_type {vision['pool_type']!r}", "expected tok")
  facts = {}
  if "timm_model_name" not in vision:
    facts["activation"] = "quick_gelu" if model.get("quick_gelu") else "gelu"
    if "width" in vision:
      facts["heads"] = vision["width"] // vision.get("head_width", 64)
  if "image_size" in vision:
    facts["image_size"] = sizes.plain(vision["image_size"])
  modes = {"shortest": "center", "squash": "squash"}
  if steps.get("resize_mode", "shortest") not in modes:
    refuse(
      source, f"a network of resize_mode {steps['resize_mode']!r}", "expected shortest, squash"
    )
  preprocessing = {key: steps.get(key) for key in ("mean", "std", "interpolation")}
  if steps:
    preprocessing |= {
      "crop_ratio": 1.0,
      "crop_mode": modes[steps.get("resize_mode", "shortest")],
    }
  return facts, _description(preprocessing, (), source)


def _activation(name, source):
  """Our name of a library's activation; raises InputError for one that is not supported."""
  if name not in _ACTIVATIONS:
    refuse(source, f"a network of activation {name!r}", "its MLPs have another activation")
  return _ACTIVATIONS[name]


def _description(preprocessing, names, source):
  given = {k: v for k, v in preprocessing.items() if v is not None}
  for key, known in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
    if given.get(key, known[0]) not in known:
      raise InputError(
        f"{source}: {key} {given[key]!r} of its config is not known: choose one of "
        f"{', '.join(known)} with config.data.{key}, after taking it out of its config.json"
      )
  description = {"preprocessing": given} if given else {}
  if names and not all(names):
    log(f"{source}: some classes in its config.json have no name: ignoring all names")
  return description | ({"classes": list(names)} if names and all(names) else {})
