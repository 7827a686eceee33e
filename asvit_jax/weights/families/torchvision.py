"""torchvision's names, `vit_b_16` and its siblings."""

from asvit_jax.weights.families.base import Family

_LAYER = "encoder.layers.encoder_layer_{}"

FAMILY = Family(
  title="torchvision's ViT",
  marker="conv_proj.weight",
  table={
    "class_token": "cls_token",
    "encoder.pos_embedding": "pos_embed",
    "conv_proj": "patch_embed.proj",
    f"{_LAYER}.ln_1": "blocks.{}.norm1",
    f"{_LAYER}.self_attention.in_proj_weight": "blocks.{}.attn.qkv.weight",
    f"{_LAYER}.self_attention.in_proj_bias": "blocks.{}.attn.qkv.bias",
    f"{_LAYER}.self_attention.out_proj": "blocks.{}.attn.proj",
    f"{_LAYER}.ln_2": "blocks.{}.norm2",
    f"{_LAYER}.mlp.0": "blocks.{}.mlp.fc1",
    f"{_LAYER}.mlp.3": "blocks.{}.mlp.fc2",
    # Before version 0.12.
    f"{_LAYER}.mlp.linear_1": "blocks.{}.mlp.fc1",
    f"{_LAYER}.mlp.linear_2": "blocks.{}.mlp.fc2",
    "encoder.ln": "norm",
    "heads.head": "head",
  },
  # For IMAGENET1K_V1; crop, mean and std are the defaults.
  preprocessing={"interpolation": "bilinear"},
)
