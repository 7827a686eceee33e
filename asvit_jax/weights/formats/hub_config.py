"""Reads the configs of the Hugging Face hub: of transformers, timm and OpenCLIP."""

import dataclasses

from asvit_jax.core import schema, sizes, storage
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import on_a_line
from asvit_jax.core.progress import log
from asvit_jax.data.preprocessing import CROP_MODES, INTERPOLATIONS, LEAST_CROP_RATIO
from asvit_jax.vit.fields import LEAST_EPSILON
from asvit_jax.weights.claims import Claim
from asvit_jax.weights.families.refused import refuse
from asvit_jax.weights.formats import labels, openclip_config, processor, timm_config

NAMES = ("config.json", processor.NAME, "open_clip_config.json")
# {a library's name: ours}.
_ACTIVATIONS = {
  **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
  **dict.fromkeys(("quick_gelu", "quickgelu"), "quick_gelu"),
  **dict.fromkeys(("gelu_tanh", "gelu_pytorch_tanh", "gelu_new"), "gelu_tanh"),
}
_POOLS = ("token", "", "avg", "map")  # timm's; "" is the class token
# Keys whose integers may be written as 32.0.
_WHOLE = (
  *("image_size", "num_attention_heads", "img_size", "num_heads", "input_size"),
  *("ref_feat_shape", "patch_size", "num_channels", "hidden_size", "intermediate_size"),
  *("num_hidden_layers", "num_register_tokens"),
  *timm_config.WHOLE,
)
_TOWERS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model")
_MODELS = (
  *("vit", "deit", "vit_mae", "vit_msn", "dinov2", "dinov2_with_registers", *_TOWERS),
  "dinov3_vit",
)
# {model_type: what its tensors show}.
_PLAIN = {"norm_pre": False, "class_token": True, "rotary": False}
_DINOV2 = _PLAIN | {"layer_scale": True}
_CLIP = _PLAIN | {"norm_pre": True}
_SIGLIP = _PLAIN | {"class_token": False}
_OF_MODELS = {
  **dict.fromkeys(("vit", "deit", "vit_mae", "vit_msn"), _PLAIN | {"layer_scale": False}),
  "dinov2": _DINOV2 | {"registers": 0},
  "dinov2_with_registers": _DINOV2,
  "clip": _CLIP,
  "clip_vision_model": _CLIP,
  "siglip": _SIGLIP,
  "siglip_vision_model": _SIGLIP,
  "dinov3_vit": {"dinov3": True},
}
# {a key of transformers' configs: fact that the tensors show}.
_COUNTS = {
  "patch_size": "patch_size",
  "num_channels": "channels",
  "num_hidden_layers": "depth",
  "hidden_size": "width",
  "intermediate_size": "hidden",
  "num_register_tokens": "registers",
  "image_size": "image_size",
}

_SIDE = schema.integer(1, 1 << 16)
_SIZE = schema.either(_SIDE, schema.array(_SIDE, 2, 2))
_SIDES = schema.table({"height": _SIDE, "width": _SIDE}, ("height", "width"), others=False)
_COUNT = schema.integer(0, 1 << 20)
_HEADS = schema.integer(1, 4096)
_SHORT = schema.text(256)
_CHANNELS = schema.array(schema.number(), 3, 3)
_TIMM = schema.table(
  {
    "architecture": _SHORT,
    "global_pool": _SHORT,
    "num_classes": _COUNT,
    "num_features": _COUNT,
    "label_names": labels.SCHEMA,
    "model_args": schema.table(
      {
        **timm_config.ARGUMENTS,
        "patch_size": _SIZE,
        "img_size": _SIZE,
        "num_heads": _HEADS,
        "global_pool": _SHORT,
        "act_layer": _SHORT,
        "rope_temperature": schema.number(1, 1e9),
        "ref_feat_shape": _SIZE,
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
    "rope_theta": schema.number(1, 1e9),
    "rope_parameters": schema.table(
      {"rope_theta": schema.number(1, 1e9), "rope_type": schema.text(choices=["default"])}
    ),
    **dict.fromkeys(("use_gated_mlp", "use_swiglu_ffn", "vision_use_head"), schema.BOOLEAN),
    "qkv_bias": schema.BOOLEAN,
    "patch_size": schema.either(_SIZE, _SIDES),
    **dict.fromkeys(("num_channels", "num_hidden_layers", "num_register_tokens"), _COUNT),
    **dict.fromkeys(("hidden_size", "intermediate_size", "projection_dim"), _COUNT),
    "image_size": schema.either(_SIZE, _SIDES),
    "id2label": labels.SCHEMA,
    "label2id": labels.SCHEMA,
    "vision_config": schema.table(),
    "architectures": schema.array(_SHORT, most=16),
  }
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
    facts, description, claims = _timms(config, source)
  elif "model_type" in config:
    steps = _read(directory, NAMES[1])
    facts, description, claims = _theirs(config, steps, source)
  elif "model_cfg" in (opened := _read(directory, NAMES[2])):
    facts, preprocessing, claims = openclip_config.read(opened, f"its {NAMES[2]}", source)
    description = _description(preprocessing, (), source)
  else:
    return stored
  return dataclasses.replace(
    stored, facts=stored.facts | facts, description=description | stored.description, claims=claims
  )


def _read(directory, name):
  """The content of a file, an object, without nulls; {} if there is no file."""
  path = storage.path(directory) / name
  if not path.is_file():
    return {}
  try:
    content = storage.read(path, schema.MOST_BYTES)
  except OSError as error:
    raise InputError(f"{path} cannot be read ({error}): fetch it again") from error
  return _said(schema.loads(content, schema.table(), str(path), "fetch it again"))


def _said(content):
  """The content without keys whose value is null."""
  if not isinstance(content, dict):
    return content
  return {key: _said(value) for key, value in content.items() if value is not None}


def _timms(config, source):
  """({fact: value}, description, claims) from timm's config."""
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
  name = config.get("architecture", "")
  timm_config.check_architecture(name, source)
  timm_config.check_arguments(arguments, source)
  facts = timm_config.facts_of(name)
  if "act_layer" in arguments:
    facts["activation"] = _activation(arguments["act_layer"], source)
  stated = pool if arguments.get("global_pool") or config.get("global_pool") else ""
  if stated:
    facts["pool"] = stated
  size = arguments.get("img_size") or described.get("input_size", [])[1:]
  if size:
    facts["image_size"] = sizes.plain(size)
  if "num_heads" in arguments:
    facts["heads"] = arguments["num_heads"]
  if "rope_temperature" in arguments:
    facts["rope_base"] = float(arguments["rope_temperature"])
  if "ref_feat_shape" in arguments:
    facts["rope_grid"] = sizes.height_width(arguments["ref_feat_shape"])
  preprocessing = {
    "crop_ratio": described.get("crop_pct"),
    "mean": described.get("mean"),
    "std": described.get("std"),
    "interpolation": described.get("interpolation"),
    "crop_mode": described.get("crop_mode"),
  }
  key = "label_names"
  names = labels.names(config.get(key, described.get(key)), key, source)
  claims = timm_config.claims(config, arguments, stated)
  return facts, _description(preprocessing, names, source), claims


def _theirs(config, steps, source):
  """({fact: value}, description, claims) from transformers' configs."""
  kind = config["model_type"]
  if isinstance(kind, str) and kind not in _MODELS:  # their configs have other keys
    kind = on_a_line(kind[:60])
    refuse(source, f"a network of model_type {kind!r}", f"expected one of {', '.join(_MODELS)}")
  config = processor.in_whole_numbers(config, _WHOLE)
  schema.check(config, _TRANSFORMERS, f"{source}: its config.json")
  facts, outside = {}, config
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
  elif config.get("use_gated_mlp"):
    if (activation := config.get("hidden_act", "gelu")) != "silu":
      refuse(source, f"a network of activation {activation!r}", "its gated MLPs have another one")
  else:
    facts["activation"] = _activation(config.get("hidden_act", "gelu"), source)
  if config.get("quantization_config"):
    raise InputError(
      f"{source} is quantised, as quantization_config of its config.json says: give the weights in "
      "float32, float16 or bfloat16"
    )
  if "num_attention_heads" in config:
    facts["heads"] = config["num_attention_heads"]
  base = config.get("rope_theta", config.get("rope_parameters", {}).get("rope_theta"))
  if base is not None:
    facts["rope_base"] = float(base)
  if "layer_norm_eps" in config:
    facts["norm_epsilon"] = config["layer_norm_eps"]
  if "image_size" in config:
    size = config["image_size"]
    size = (size["height"], size["width"]) if isinstance(size, dict) else size
    facts["image_size"] = sizes.plain(size)
  names = labels.names(config.get("id2label"), "id2label", source)
  labels.check_inverse(names, config.get("label2id"), source)
  claims = tuple(_claims(kind, config, outside))
  return facts, _description(processor.fields(steps, source), names, source), claims


def _claims(kind, config, outside):
  """The `Claim`s of transformers' config.

  Args:
    kind: its `model_type`.
    config: that of the image network, with the labels of `outside`.
    outside: all of it.
  """
  place = "{} of vision_config of its config.json"
  place = place if kind in _TOWERS and "vision_config" in outside else "{} of its config.json"
  for fact, expected in _OF_MODELS[kind].items():
    yield Claim(fact, expected, "model_type of its config.json", kind)
  counts = dict(_COUNTS)
  if kind.startswith("dinov2"):  # `mlp_ratio` instead
    del counts["intermediate_size"]
  for key, fact in counts.items():
    if key in config:
      value = config[key]
      value = (value["height"], value["width"]) if isinstance(value, dict) else value
      value = sizes.plain(value) if fact in ("patch_size", "image_size") else value
      yield Claim(fact, value, place.format(key))
  if kind not in _TOWERS and "qkv_bias" in config and not kind.startswith("dinov3"):
    yield Claim("qkv_bias", config["qkv_bias"], place.format("qkv_bias"))
  for key in ("use_gated_mlp", "use_swiglu_ffn"):
    if key in config:
      yield Claim("swiglu", config[key], place.format(key))
  if "num_attention_heads" in config:
    yield Claim("heads", config["num_attention_heads"], place.format("num_attention_heads"))
  elif kind in _TOWERS:
    key = place.format("num_attention_heads")
    yield Claim("heads", 12, key, "missing, so that it is transformers' own, 12")
  whole = kind == "clip" and "vision_config" in outside
  if whole and "projection_dim" in outside:
    yield Claim("projected", outside["projection_dim"], "projection_dim of its config.json")
  classifies = any("ForImageClassification" in str(n) for n in outside.get("architectures", ()))
  if kind.startswith("siglip"):
    if classifies:
      name = "architectures of its config.json"
      yield Claim("classifier", True, name, outside["architectures"])
    elif config.get("vision_use_head"):
      yield Claim("siglips_head", True, place.format("vision_use_head"))
  if isinstance(config.get("id2label"), dict) and labels.unnamed(config["id2label"]):
    yield Claim("classified", len(config["id2label"]), "the number of labels in id2label")


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
