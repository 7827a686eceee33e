"""timm's names, which DeiT, DINO, MoCo-v3, MAE, LV-ViT and this package use."""

from asvit_jax.weights.families.base import Family
from asvit_jax.weights.families.clip import CLIP_PREPROCESSING, SIGLIP_PREPROCESSING

_MOCO = ("base_encoder.", "momentum_encoder.")


def _seen(tensors, prefix):
  """The facts of MoCo-v3, whose small ViT has 12 heads, where DeiT's has 6, and of CLIP."""
  epsilon = {"norm_epsilon": 1e-5} if f"{prefix}norm_pre.weight" in tensors else {}
  return epsilon | ({"heads": 12} if prefix.endswith(_MOCO) else {})


def _prepares(tensors, prefix):
  """The preprocessing of CLIP's and SigLIP's image towers."""
  if f"{prefix}norm_pre.weight" in tensors:
    return CLIP_PREPROCESSING
  return SIGLIP_PREPROCESSING if f"{prefix}attn_pool.latent" in tensors else {}


FAMILY = Family(
  title="timm's ViT",
  marker="patch_embed.proj.weight",
  table={
    # Modules that already have timm's name.
    **{
      name: name
      for name in (
        *("patch_embed.proj", "norm_pre", "norm", "fc_norm", "head", "head_dist", "aux_head"),
        *("cls_token", "dist_token", "reg_token", "pos_embed"),
        *("attn_pool.latent", "attn_pool.q", "attn_pool.kv", "attn_pool.proj", "attn_pool.norm"),
        *("attn_pool.mlp.fc1", "attn_pool.mlp.fc2"),
        *(
          f"blocks.{{}}.{module}"
          for module in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        ),
        *("blocks.{}.ls1.gamma", "blocks.{}.ls2.gamma"),
      )
    },
    "register_tokens": "reg_token",  # DINOv2's authors'
    "head.proj.weight": "head.weight",  # OpenCLIP's, beside a network of timm
    # DeiT-III as its authors wrote it.
    "blocks.{}.gamma_1": "blocks.{}.ls1.gamma",
    "blocks.{}.gamma_2": "blocks.{}.ls2.gamma",
    # The authors' pruned networks.
    "score_predictor.{}.keep_threshold": "score_predictor.{}.keep_threshold",
    # Layers of the other stems.
    **{
      f"patch_embed.{layer}": f"patch_embed.{layer}"
      for layer in ("conv1", "conv2", "conv3", "bn1", "bn2", "bn3")
    },
  },
  ours=True,
  unneeded=(
    r"text\..*|logit_(scale|bias)",  # OpenCLIP
    r"mask_token",  # DINOv2, MAE
    r"decoder_.*",  # MAE
    r"head\.(mlp|last_layer)\..*",  # DINO
    r"(head\.[0-9]+|predictor)\..*",  # MoCo-v3
  ),
  seen=_seen,
  prepares=_prepares,
)
