"""timm's names, which DeiT, DINO, MoCo-v3, MAE, LV-ViT and this package use."""

from asvit_jax.weights.families import rotary
from asvit_jax.weights.families.base import Family

_MOCO = ("base_encoder.", "momentum_encoder.")


def _seen(tensors, prefix):
  """The facts of MoCo-v3, whose small ViT has 12 heads, where DeiT's has 6; see `rotary`, too."""
  facts = {"heads": 12} if prefix.endswith(_MOCO) else {}
  return facts | rotary.seen(tensors, prefix)


FAMILY = Family(
  title="timm's ViT",
  marker="patch_embed.proj.weight",
  table={
    # Modules that already have timm's name.
    **{
      name: name
      for name in (
        *("patch_embed.proj", "norm", "head", "head_dist", "aux_head"),
        *("cls_token", "dist_token", "pos_embed"),
        *(
          f"blocks.{{}}.{module}"
          for module in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        ),
        *("blocks.{}.ls1.gamma", "blocks.{}.ls2.gamma"),
      )
    },
    **rotary.BLOCK,
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
    r"mask_token",  # DINOv2, MAE
    r"decoder_.*",  # MAE
    r"head\.(mlp|last_layer)\..*",  # DINO
    r"(head\.[0-9]+|predictor)\..*",  # MoCo-v3
    *rotary.UNNEEDED,
  ),
  seen=_seen,
  prepared=rotary.prepared,
  optional=("k.bias",),
)
