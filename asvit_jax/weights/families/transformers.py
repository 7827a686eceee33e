"""Hugging Face transformers' names: ViT, DeiT, ViTMAE, DINOv2, also with registers."""

from asvit_jax.weights.families.base import Family


def _blocks(layer):
  """The table of a block, for the prefix of its modules' names."""
  return {
    f"{layer}.layernorm_before": "blocks.{}.norm1",
    f"{layer}.attention.attention.query": "blocks.{}.attn.q",
    f"{layer}.attention.attention.key": "blocks.{}.attn.k",
    f"{layer}.attention.attention.value": "blocks.{}.attn.v",
    f"{layer}.attention.output.dense": "blocks.{}.attn.proj",
    f"{layer}.layernorm_after": "blocks.{}.norm2",
    f"{layer}.intermediate.dense": "blocks.{}.mlp.fc1",
    f"{layer}.output.dense": "blocks.{}.mlp.fc2",
    # DINOv2.
    f"{layer}.norm1": "blocks.{}.norm1",
    f"{layer}.norm2": "blocks.{}.norm2",
    f"{layer}.layer_scale1.lambda1": "blocks.{}.ls1.gamma",
    f"{layer}.layer_scale2.lambda1": "blocks.{}.ls2.gamma",
    # The names in memory of version 5.
    f"{layer}.attention.q_proj": "blocks.{}.attn.q",
    f"{layer}.attention.k_proj": "blocks.{}.attn.k",
    f"{layer}.attention.v_proj": "blocks.{}.attn.v",
    f"{layer}.attention.o_proj": "blocks.{}.attn.proj",
    f"{layer}.mlp.fc1": "blocks.{}.mlp.fc1",
    f"{layer}.mlp.fc2": "blocks.{}.mlp.fc2",
  }


def _seen(tensors, prefix):
  """The facts of DINOv2, whose layer norms have another epsilon."""
  scaled = any(name.endswith(".layer_scale1.lambda1") for name in tensors)
  return {"norm_epsilon": 1e-6} if scaled else {}


FAMILY = Family(
  title="Hugging Face transformers' ViT",
  marker="embeddings.patch_embeddings.projection.weight",
  table={
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "head_dist",
    **_blocks("encoder.layer.{}"),
    **_blocks("layers.{}"),
  },
  unneeded=(r"pooler\..*", r"decoder\..*", r"embeddings\.mask_token"),
  facts={"norm_epsilon": 1e-12},
  seen=_seen,
)
