"""Networks with unsupported blocks, recognized by a tensor that only they have."""

import re

from asvit_jax.core.errors import InputError
from asvit_jax.weights.families import base

# (regular expression of a tensor's name, the network it belongs to, why that is not supported).
_OTHERS = (
  (
    r"(^|\.)(visual\.attn_pool|attention_pool|visual\.attnpool)[./]",
    "a network with another attention pooling, such as CoCa's or that of CLIP's ResNets",
    "its prediction comes from another attention over all tokens than SigLIP's",
  ),
  (
    r"(^|\.)layers\.\d+\.blocks\.\d+\.attn\.",
    "Swin, or another with windows",
    "its attention is restricted to windows",
  ),
  (
    r"relative_position_bias",
    "BEiT, or another network with relative positions",
    "its attention depends on learned distances",
  ),
  (
    r"(^|\.)rope\.freqs$",
    "a network with learned rotary positions (timm's rope_mixed)",
    "each of its blocks rotates by other angles",
  ),
  (
    r"\.attn\.(inner_attn_ln|norm)\.",
    "EVA-02's tower for CLIP",
    "its attention normalises its output",
  ),
  (r"(^|\.)blocks_token_only\.", "CaiT", "its last blocks attend from the class token alone"),
  (
    r"(^|[./])(conv_root|patch_embed\.backbone)[./]",
    "a hybrid of ResNet and ViT",
    "its stem is a ResNet",
  ),
  (
    r"(^|\.)patch_embed\.proj\.[0-9]+\.",
    "a network whose stem is several convolutions, such as MoCo-v3's vit_conv",
    "its stem has other layers",
  ),
  (r"(^|[./])MixerBlock_\d+/|\.mlp_tokens\.", "MLP-Mixer", "it has no attention"),
  (r"(^|\.)layer1\.0\.conv1\.weight$", "a ResNet", "it is not a transformer"),
  (
    r"(^|\.)stages\.\d+\.(blocks|layers)\.",
    "ConvNeXt, or another network of stages",
    "it is not a plain ViT",
  ),
  (r"(^|\.)(text_model|lm_head|word_embeddings|wte)\.", "a network for text", "it is not a ViT"),
)


def check(tensors, source, prefix=""):
  """Raises InputError, with the network's name, for a network with unsupported blocks.

  Args:
    tensors: {name: array}.
    source: name of the source, for the error.
    prefix: prefix of the network's tensor names.
  """
  for pattern, what, why in _OTHERS:
    for name in tensors:
      if re.search(pattern, name.removeprefix(prefix)):
        refuse(source, f"{what} (it has {name})", why)
  names = {name.removeprefix(prefix) for name in tensors}
  clip = "embeddings.class_embedding" in names
  if clip and base.holds(tensors, prefix, "classifier.weight"):
    refuse(source, "CLIPForImageClassification", "its head reads patches without the final norm")


def refuse(source, what, why):
  """Raises InputError for weights of a known network with unsupported blocks."""
  raise InputError(
    f"{source} looks like {what}, whose blocks are not supported: {why}; give weights of a "
    "plain ViT, see docs/weights.md"
  )
