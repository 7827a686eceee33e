"""Image towers of CLIP and SigLIP: transformers' names, and OpenCLIP's, which are OpenAI's."""

from asvit_jax.weights.families.base import Family, holds

# OpenAI's, which OpenCLIP has kept; an image's shorter side is resized to the network's.
CLIP_PREPROCESSING = {
  "mean": [0.48145466, 0.4578275, 0.40821073],
  "std": [0.26862954, 0.26130258, 0.27577711],
  "crop_ratio": 1.0,
  "interpolation": "bicubic",
}
SIGLIP_PREPROCESSING = {
  "mean": [0.5, 0.5, 0.5],
  "std": [0.5, 0.5, 0.5],
  "crop_ratio": 1.0,
  "interpolation": "bicubic",
  "crop_mode": "squash",
}
_CLASSIFIER = "classifier.weight"
_LAYER = "encoder.layers.{}"
_BLOCK = "visual.transformer.resblocks.{}"


def _layout(name, value):
  """Adds the axes of timm's class token and positions."""
  if name == "cls_token" and value.ndim == 1:
    return value[None, None]
  return value[None] if name == "pos_embed" and value.ndim == 2 else value


def _openai_layout(name, value):
  """As `_layout`; the projection is (in, out)."""
  return value.T if name == "head.weight" and value.ndim == 2 else _layout(name, value)


def _is_clip(tensors):
  return any(name.endswith("embeddings.class_embedding") for name in tensors)


def _seen(tensors, prefix):
  """The facts of transformers' configs that leave them out: CLIP's, or SigLIP's."""
  head = "projection" if holds(tensors, prefix, "visual_projection.weight") else "none"
  head = "classifier" if holds(tensors, prefix, _CLASSIFIER) else head
  if _is_clip(tensors):
    return {"norm_epsilon": 1e-5, "activation": "quick_gelu", "head": head}
  return {"norm_epsilon": 1e-6, "activation": "gelu_tanh", "head": head}


def _unread(tensors, prefix):
  """The attention pooling that `SiglipForImageClassification` holds beside its classifier.

  Its forward classifies the mean of the last tokens instead, whatever `vision_use_head` says.
  """
  return (r"head\..*",) if holds(tensors, prefix, _CLASSIFIER) else ()


def _prepares(tensors, prefix):
  del prefix
  return CLIP_PREPROCESSING if _is_clip(tensors) else SIGLIP_PREPROCESSING


def _seen_openai(tensors, prefix):
  """The facts of OpenAI's files, which have a resolution among their tensors; else OpenCLIP's."""
  openai = f"{prefix}input_resolution" in tensors
  head = "projection" if f"{prefix}visual.proj" in tensors else "none"
  return {"activation": "quick_gelu" if openai else "gelu", "head": head}


FAMILY = Family(
  title="Hugging Face transformers' CLIP or SigLIP",
  marker="embeddings.patch_embedding.weight",
  table={
    "embeddings.class_embedding": "cls_token",
    "embeddings.patch_embedding": "patch_embed.proj",
    "embeddings.position_embedding.weight": "pos_embed",
    "pre_layrnorm": "norm_pre",  # their spelling
    f"{_LAYER}.layer_norm1": "blocks.{}.norm1",
    f"{_LAYER}.self_attn.q_proj": "blocks.{}.attn.q",
    f"{_LAYER}.self_attn.k_proj": "blocks.{}.attn.k",
    f"{_LAYER}.self_attn.v_proj": "blocks.{}.attn.v",
    f"{_LAYER}.self_attn.out_proj": "blocks.{}.attn.proj",
    f"{_LAYER}.layer_norm2": "blocks.{}.norm2",
    f"{_LAYER}.mlp.fc1": "blocks.{}.mlp.fc1",
    f"{_LAYER}.mlp.fc2": "blocks.{}.mlp.fc2",
    "post_layernorm": "norm",
    "visual_projection": "head",
    "classifier": "head",
    "head.probe": "attn_pool.latent",
    "head.attention.in_proj_weight": "attn_pool.in_proj.weight",
    "head.attention.in_proj_bias": "attn_pool.in_proj.bias",
    "head.attention.out_proj": "attn_pool.proj",
    "head.layernorm": "attn_pool.norm",
    "head.mlp.fc1": "attn_pool.mlp.fc1",
    "head.mlp.fc2": "attn_pool.mlp.fc2",
  },
  unneeded=(
    r"(.*\.)?text_model\..*",
    r"(.*\.)?(text_projection\.weight|logit_scale|logit_bias)",
    r"embeddings\.position_ids",  # a counter of older versions
  ),
  unread=_unread,
  layout=_layout,
  seen=_seen,
  prepares=_prepares,
)

OPENCLIP = Family(
  title="OpenCLIP's image tower",
  marker="visual.conv1.weight",
  table={
    "visual.class_embedding": "cls_token",
    "visual.conv1": "patch_embed.proj",
    "visual.positional_embedding": "pos_embed",
    "visual.ln_pre": "norm_pre",
    f"{_BLOCK}.ln_1": "blocks.{}.norm1",
    f"{_BLOCK}.attn.in_proj_weight": "blocks.{}.attn.qkv.weight",
    f"{_BLOCK}.attn.in_proj_bias": "blocks.{}.attn.qkv.bias",
    f"{_BLOCK}.attn.out_proj": "blocks.{}.attn.proj",
    f"{_BLOCK}.ls_1.gamma": "blocks.{}.ls1.gamma",
    f"{_BLOCK}.ln_2": "blocks.{}.norm2",
    f"{_BLOCK}.mlp.c_fc": "blocks.{}.mlp.fc1",
    f"{_BLOCK}.mlp.c_proj": "blocks.{}.mlp.fc2",
    f"{_BLOCK}.ls_2.gamma": "blocks.{}.ls2.gamma",
    "visual.ln_post": "norm",
    "visual.proj": "head.weight",
  },
  unneeded=(
    r"(text|transformer|token_embedding|ln_final)\..*",
    r"positional_embedding|text_projection|logit_scale|logit_bias|attn_mask",
    r"input_resolution|context_length|vocab_size",
  ),
  layout=_openai_layout,
  preprocessing=CLIP_PREPROCESSING,
  facts={"norm_epsilon": 1e-5},
  seen=_seen_openai,
)
