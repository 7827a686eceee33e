"""OpenCLIP's open_clip_config.json, of which the image tower's `vision_cfg` is read."""

from asvit_jax.core import schema, sizes
from asvit_jax.core.errors import InputError
from asvit_jax.vit.fields import LEAST_EPSILON
from asvit_jax.weights.claims import Claim
from asvit_jax.weights.families.refused import refuse
from asvit_jax.weights.formats import processor, timm_config

_POOLS = ("token", "avg", "map")  # of timm's networks; "" is the architecture's own
_MODES = {"shortest": "center", "squash": "squash"}
_WHOLE = ("image_size", "patch_size", "width", "head_width", "layers")

_SIDE = schema.integer(1, 1 << 16)
_SIZE = schema.either(_SIDE, schema.array(_SIDE, 2, 2))
_COUNT = schema.integer(1, 1 << 16)
_SHORT = schema.text(256)
_CHANNELS = schema.array(schema.number(), 3, 3)
_VISION = schema.table(
  {
    **dict.fromkeys(("image_size", "patch_size"), _SIZE),
    **dict.fromkeys(("width", "head_width"), _COUNT),
    "layers": schema.either(_COUNT, schema.array(_COUNT, most=16)),  # a list for ResNets
    **dict.fromkeys(("pool_type", "timm_model_name", "timm_pool", "timm_proj"), _SHORT),
    "no_ln_pre": schema.BOOLEAN,
    "mlp_ratio": schema.number(0.01, 100),
    "norm_kwargs": schema.table({"eps": schema.number(LEAST_EPSILON, 0.1)}),
    "act_kwargs": schema.table({"approximate": _SHORT}),
  }
)
_SCHEMA = schema.table(
  {
    "model_cfg": schema.table(
      {"quick_gelu": schema.BOOLEAN, "embed_dim": _COUNT, "vision_cfg": _VISION}, ("vision_cfg",)
    ),
    "preprocess_cfg": schema.table(
      {"mean": _CHANNELS, "std": _CHANNELS, "interpolation": _SHORT, "resize_mode": _SHORT}
    ),
  },
  ("model_cfg",),
)

# {key of vision_cfg of OpenCLIP's own ViT: the values that are supported}.
_ONLY = {
  "pool_type": ("tok",),
  "pos_embed_type": ("learnable", "learn", "sin_cos_2d"),  # in the file, all of them
  "block_type": ("default", "custom"),  # "custom" alone computes the same
}
# Read below, without effect on the features of an image, or of a pooling that is refused.
_FREE = (
  *("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value"),
  *("no_ln_pre", "norm_kwargs", "act_kwargs", "patch_dropout", "output_tokens"),
  *("attn_pooler_queries", "attn_pooler_heads"),
  "final_ln_after_pool",  # the same for the class token alone
  *("timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"),
  *("timm_drop", "timm_drop_path"),
)
_OFF = (False, 0, "", "none", [], {})


def read(content, what, source):
  """({field of `Architecture`: value}, preprocessing with None for what is open, `Claim`s).

  Args:
    content: that of open_clip_config.json without nulls.
    what: the file, for errors.
    source: the weights, for errors.

  Raises:
    InputError: values of another type, or a network or preprocessing that is not supported.
  """
  content = _in_whole_numbers(content)
  schema.check(content, _SCHEMA, f"{source}: {what}")
  model, steps = content["model_cfg"], content.get("preprocess_cfg", {})
  vision = model["vision_cfg"]
  if "timm_model_name" in vision:
    facts = _of_timm(vision, source)
  else:
    facts = _of_its_own(model, vision, what, source)
  if "image_size" in vision:
    facts["image_size"] = sizes.plain(vision["image_size"])
  mode = steps.get("resize_mode", "shortest")
  if mode not in _MODES:
    refuse(source, f"a network of resize_mode {mode!r}", "expected shortest, squash")
  preprocessing = {key: steps.get(key) for key in ("mean", "std", "interpolation")}
  if steps:
    preprocessing |= {"crop_ratio": 1.0, "crop_mode": _MODES[mode]}
  return facts, preprocessing, tuple(_claims(model, vision, what))


def _in_whole_numbers(content):
  """The content with floats such as 32.0 as integers where whole numbers are expected."""
  model = content.get("model_cfg")
  vision = model.get("vision_cfg") if isinstance(model, dict) else None
  if not isinstance(vision, dict):
    return content
  model = processor.in_whole_numbers(model, ("embed_dim",))
  return content | {"model_cfg": model | {"vision_cfg": processor.in_whole_numbers(vision, _WHOLE)}}


def _of_timm(vision, source):
  """The facts of a tower that is a network of timm; its own keys have no effect on it."""
  name = vision["timm_model_name"]
  timm_config.check_architecture(name, source)
  if vision.get("timm_proj") not in (None, "", "none", "linear"):
    why = "expected linear or none, as its projection"
    refuse(source, f"a network of timm_proj {vision['timm_proj']!r}", why)
  pool = vision.get("timm_pool")
  if pool and pool not in _POOLS:
    refuse(source, f"a network of timm_pool {pool!r}", f"expected one of {', '.join(_POOLS)}")
  return timm_config.facts_of(name) | ({"pool": pool} if pool else {})


def _of_its_own(model, vision, what, source):
  """The facts of OpenCLIP's own ViT.

  Raises:
    InputError: a key that changes the features in a way that is not supported.
  """
  for key, value in vision.items():
    allowed = _ONLY.get(key, ())
    if key not in _FREE and value not in (*allowed, *_OFF):
      why = f"expected {' or '.join(allowed)}" if allowed else "expected false, or to be left out"
      raise _unsupported(key, value, why, what, source)
  quick, given = model.get("quick_gelu", False), vision.get("act_kwargs", {})
  tanh = given.get("approximate", "none") == "tanh"
  if given.keys() - {"approximate"} or given.get("approximate", "none") not in ("none", "tanh"):
    why = "expected approximate, none or tanh, as its only key"
    raise _unsupported("act_kwargs", given, why, what, source)
  if quick and tanh:
    raise _unsupported("act_kwargs", given, "quick_gelu has no approximation", what, source)
  norms = vision.get("norm_kwargs", {})
  if norms.keys() - {"eps"}:
    raise _unsupported("norm_kwargs", norms, "expected eps as its only key", what, source)
  facts = {"activation": "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu"}
  if "eps" in norms:
    facts["norm_epsilon"] = norms["eps"]
  if "width" in vision:
    width, head = vision["width"], vision.get("head_width", 64)
    if width % head:
      place = f"head_width of vision_cfg of {what}"
      raise InputError(
        f"{source}: {place} is {head}, but width is {width}, which is no multiple of it: correct it"
      )
    facts["heads"] = width // head
  return facts


def _claims(model, vision, what):
  """What the config says of the tensors."""
  place = f"{{}} of vision_cfg of {what}"
  sized = {key: sizes.plain(vision[key]) for key in ("patch_size", "image_size") if key in vision}
  if "timm_model_name" in vision:
    name = vision["timm_model_name"]
    for fact, expected in timm_config.of_architecture(name):
      yield Claim(fact, expected, place.format("timm_model_name"), name)
    if vision.get("timm_pool"):
      pool = vision["timm_pool"]
      yield Claim("attention_pooling", pool == "map", place.format("timm_pool"), pool)
    sized.pop("patch_size", None)
  else:
    for key, fact in (("width", "width"), ("layers", "depth")):
      if isinstance(vision.get(key), int):
        yield Claim(fact, vision[key], place.format(key))
    if "mlp_ratio" in vision and "width" in vision:
      hidden = int(vision["width"] * vision["mlp_ratio"])
      yield Claim("hidden", hidden, place.format("mlp_ratio"), vision["mlp_ratio"])
    without = vision.get("no_ln_pre", False)
    yield Claim("norm_pre", not without, place.format("no_ln_pre"), without)
    if vision.get("ls_init_value"):
      key = "ls_init_value"
      yield Claim("layer_scale", True, place.format(key), vision[key])
  for key, size in sized.items():
    yield Claim(key, size, place.format(key))
  if "embed_dim" in model:
    yield Claim("projected", model["embed_dim"], f"embed_dim of model_cfg of {what}")


def _unsupported(key, value, why, what, source):
  name = ascii(key)[1:61].rstrip("'")
  return InputError(
    f"{source}: {name} of vision_cfg of {what} is {ascii(value)[:60]}, which is not supported "
    f"({why}): correct it, or use other weights"
  )
