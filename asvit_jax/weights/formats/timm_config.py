"""timm's names of architectures, and the arguments of its constructors, `model_args`.

Every argument is one of these: the tensors show what it does, and must agree; it does nothing to a
prediction; it is read by `hub_config`; or only the values below are supported.
"""

import re

from asvit_jax.core import schema, sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.weights.claims import Claim
from asvit_jax.weights.families.refused import refuse

_WHERE = "model_args.{} of its config.json"
_COUNT = schema.integer(0, 1 << 20)
# {argument: fact that the tensors show}.
_COUNTS = {
  "in_chans": "channels",
  "embed_dim": "width",
  "depth": "depth",
  "reg_tokens": "registers",
  "num_reg_tokens": "registers",
}
_FLAGS = {
  "qkv_bias": "qkv_bias",
  "qk_norm": "qk_norm",
  "class_token": "class_token",
  "pre_norm": "norm_pre",
  "use_pre_transformer_norm": "norm_pre",
  "fc_norm": "norm_after_pool",
  "use_fc_norm": "norm_after_pool",
  "scale_mlp": "mlp_norm",
  "scale_mlp_norm": "mlp_norm",
  "swiglu_mlp": "swiglu",
  "use_abs_pos_emb": "pos_embed",
  "use_rot_pos_emb": "rotary",
  "rope_rotate_half": "rope_rotate_half",
}
_OTHERS = {
  "rope_grid_indexing": schema.text(256),
  "rope_grid_offset": schema.number(),
  "rope_type": schema.text(256),
}
# {argument: the values that are supported}; none for modules, which JSON cannot name.
_ONLY = {
  **dict.fromkeys(("embed_layer", "embed_norm_layer", "norm_layer", "block_fn", "mlp_layer"), ()),
  **dict.fromkeys(("scale_attn_norm", "scale_attn_inner", "attn_only_layer_scale"), (False,)),
  **dict.fromkeys(("use_post_norm", "use_naflex", "features_only"), (False,)),
  "proj_bias": (True,),
  "final_norm": (True,),
  "pos_embed": ("learn",),
  "attn_layer": ("attn",),
  "attn_type": ("eva", "rope"),
  "rope_type": ("cat", "dinov3"),
}
_HEADS = ("num_kv_heads", "attn_pool_num_heads")  # supported if they are num_heads
# Read by `hub_config`, or seen in the tensors without ambiguity, or of training alone.
_FREE = frozenset(
  (
    *("img_size", "patch_size", "num_classes", "num_heads", "global_pool", "act_layer"),
    *("rope_temperature", "ref_feat_shape", "pool_include_prefix", "init_values"),
    *("mlp_ratio", "attn_pool_mlp_ratio", "swiglu_align_to", "qkv_fused", "no_embed_class"),
    *("use_post_transformer_norm", "dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
    *("drop_path_rate", "drop_block_rate", "weight_init", "fix_init", "head_init_scale"),
    *("rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "rope_mrope_section"),
    *("device", "dtype", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"),
    *("checkpoint_path", "scriptable", "exportable", "no_jit", "out_indices"),
    *("pretrained_strict", "distilled_training"),
  )
)
ARGUMENTS = {
  **dict.fromkeys(_COUNTS, _COUNT),
  **dict.fromkeys(_FLAGS, schema.BOOLEAN),
  **_OTHERS,
  "init_values": schema.number(),
  "num_classes": _COUNT,
}
WHOLE = (*_COUNTS, "num_classes", "patch_size")

# Networks whose tensors look like those of others.
_APART = (
  (r"vit_pe_", "a Perception Encoder", "its rotary positions are of another kind"),
  (r"vit_.*_rope_(?!reg\d+_gap)", "RoPE-ViT", "its rotary positions are of another kind"),
  (r"vit_.*_sapiens2", "Sapiens2", "its attention shares keys and values"),
  (r"vit_.*_rpn_", "a network with norms after its layers", "its norms are at other places"),
)
# Those with GELU's approximation by tanh, as timm 1.0.31 has them.
_TANH = r"vit_((base_patch32|giantopt_patch16|so400m_patch16)_siglip|large_patch16_siglip_.*512)"
_HEADS_OF = {"vit_base_patch16_gap_224": 16}  # where others of its width have 12


def check_architecture(name, source):
  """Raises InputError for an architecture that is not supported, which no tensor shows.

  Args:
    name: `architecture` of the config.
    source: the weights, for the error.
  """
  for pattern, what, why in _APART:
    if re.match(pattern, name):
      refuse(source, f"{what} (its config.json has architecture {shown(name, 60)})", why)


def facts_of(name):
  """{field of `Architecture`: value} for what no tensor of an architecture shows."""
  quick, tanh = "quickgelu" in name, re.match(_TANH, name)
  facts = {"activation": "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu"}
  return facts | ({"heads": _HEADS_OF[name]} if name in _HEADS_OF else {})


def check_arguments(arguments, source):
  """Raises InputError for an argument that changes the prediction in a way that is not supported.

  Args:
    arguments: `model_args` without nulls.
    source: the weights, for the error.
  """
  for key, value in arguments.items():
    if key in _ONLY and not any(type(value) is type(v) and value == v for v in _ONLY[key]):
      expected = " or ".join(map(repr, _ONLY[key])) or "none, as timm's constructor has it"
      raise _refused(key, value, f"expected {expected}", source)
    if key in _HEADS and value != arguments.get("num_heads"):
      raise _refused(key, value, "expected the same number as num_heads", source)
    known = key in _ONLY or key in _HEADS or key in _FREE or key in ARGUMENTS
    if not known and value not in (False, "", [], {}):
      why = "it is not known here: take it out if it does not change the prediction"
      raise _refused(ascii(key)[1:61].rstrip("'"), value, why, source)


def claims(content, arguments, pool):
  """The `Claim`s of a config that fits the schema.

  Args:
    content: that of config.json without nulls.
    arguments: its `model_args`.
    pool: the pooling that it states; "" for none.
  """
  found = {}

  def claim(fact, expected, key, given=None):
    found[fact] = Claim(fact, expected, key, given)  # later ones replace those of the architecture

  name = content.get("architecture", "")
  for fact, expected in of_architecture(name):
    claim(fact, expected, "architecture of its config.json", name)
  if pool:
    where = "global_pool of its config.json"
    claim("attention_pooling", pool == "map", where, pool)
    if pool == "token":
      claim("class_token", True, where, pool)
    if pool != "avg":
      claim("norm_after_pool", False, where, pool)
  if "num_features" in content:
    claim("width", content["num_features"], "num_features of its config.json")
  for stated, where in ((content, "{} of its config.json"), (arguments, _WHERE)):
    if stated.get("num_classes"):
      claim("classes", stated["num_classes"], where.format("num_classes"))
  if "patch_size" in arguments:
    claim("patch_size", sizes.plain(arguments["patch_size"]), _WHERE.format("patch_size"))
  for key, fact in (_COUNTS | _FLAGS | dict(zip(_OTHERS, _OTHERS, strict=True))).items():
    if key in arguments:
      claim(fact, arguments[key], _WHERE.format(key))
  if arguments.get("init_values"):
    claim("layer_scale", True, _WHERE.format("init_values"), arguments["init_values"])
  if "num_heads" in arguments:
    claim("heads", arguments["num_heads"], _WHERE.format("num_heads"))
  if "img_size" in arguments:
    claim("image_size", sizes.plain(arguments["img_size"]), _WHERE.format("img_size"))
  return tuple(found.values())


def of_architecture(name):
  """Yields (fact, value) of `claims.shown_by` for the tensors of an architecture, by its name."""
  if not re.match(r"(vit|deit|deit3|flexivit|eva|eva02)_", name):
    return
  yield "norm_pre", name.startswith("vit_") and ("_clip_" in name or "_xp_" in name)
  if match := re.search(r"_reg(\d+)_", name):
    yield "registers", int(match[1])
  if "siglip" in name:
    yield "class_token", False
  if "dinov2" in name:
    yield "layer_scale", True
  if "dinov3" in name or "lingbot" in name:
    yield "dinov3", True
  else:
    yield "rotary", name.startswith("eva02_") or "_rope_" in name


def _refused(key, value, why, source):
  return InputError(
    f"{source}: {_WHERE.format(key)} is {ascii(value)[:60]}, which is not supported ({why}): "
    "correct it, or use other weights"
  )
