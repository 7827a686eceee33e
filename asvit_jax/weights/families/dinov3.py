"""Hugging Face transformers' names of DINOv3: its ViTs, in files and in memory."""

from asvit_jax.weights.families.base import Family


def _blocks(layer):
  """The table of a block, for the prefix of its modules' names."""
  return {
    f"{layer}.norm1": "blocks.{}.norm1",
    f"{layer}.norm2": "blocks.{}.norm2",
    f"{layer}.attention.q_proj": "blocks.{}.attn.q",
    f"{layer}.attention.k_proj": "blocks.{}.attn.k",
    f"{layer}.attention.v_proj": "blocks.{}.attn.v",
    f"{layer}.attention.o_proj": "blocks.{}.attn.proj",
    f"{layer}.layer_scale1.lambda1": "blocks.{}.ls1.gamma",
    f"{layer}.layer_scale2.lambda1": "blocks.{}.ls2.gamma",
    # Gated or not: without `gate_proj`, `up_proj` is the whole first layer.
    f"{layer}.mlp.gate_proj": "blocks.{}.mlp.fc1.gate",
    f"{layer}.mlp.up_proj": "blocks.{}.mlp.fc1.up",
    f"{layer}.mlp.down_proj": "blocks.{}.mlp.fc2",
  }


FAMILY = Family(
  title="Hugging Face transformers' DINOv3",
  marker="embeddings.patch_embeddings.weight",
  table={
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings": "patch_embed.proj",
    "norm": "norm",
    "classifier": "head",
    **_blocks("layer.{}"),
    **_blocks("model.layer.{}"),
  },
  unneeded=(r"embeddings\.mask_token",),
  facts={"rope": "dinov3", "pos_embed": False, "norm_epsilon": 1e-5},
  optional=("k.bias", "gate"),
)
