"""Networks with unsupported blocks, recognized by a tensor that only they have."""

import re

from asvit_jax.core.errors import InputError

# (regular expression of a tensor's name, the network it belongs to, why that is not supported).
_OTHERS = (
  (
    r"(^|\.)(embeddings\.patch_embedding|visual\.conv1|visual\.class_embedding|class_embedding)"
    r"(\.weight)?$",
    "a CLIP or SigLIP tower",
    "CLIP normalises its tokens before the first block, and SigLIP has no class token",
  ),
  (
    r"(^|\.)norm_pre\.weight$",
    "a CLIP tower",
    "it normalises its tokens before the first block",
  ),
  (
    r"(^|\.)(attn_pool|attention_pool|MAPHead_0)[./]",
    "a network with attention pooling, such as SigLIP's",
    "its prediction comes from an attention over all tokens, not from a class token",
  ),
  (
    r"(^|\.)(reg_token|register_tokens|storage_tokens)$",
    "a network with register tokens, such as DINOv2's with registers",
    "these tokens are not supported",
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
  (
    r"(^|\.)(fc_norm|encoder\.fc_norm)\.weight$",
    "a network that pools all tokens (global_pool avg), such as fine-tuned MAE",
    "its head reads the mean of the patches, not the class token",
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
  if prefix.endswith("/") or "embedding/kernel" in {n.removeprefix(prefix) for n in tensors}:
    _check_google({name.removeprefix(prefix) for name in tensors}, source)


def refuse(source, what, why):
  """Raises InputError for weights of a known network with unsupported blocks."""
  raise InputError(
    f"{source} looks like {what}, whose blocks are not supported: {why}; give weights of a "
    "plain ViT with a class token, see docs/weights.md"
  )


def _check_google(names, source):
  if "cls" not in names:
    raise InputError(
      f"{source} looks like Google's ViT, but has no class token (cls): its head reads the mean of "
      "the patches; give weights that were trained with a class token (classifier 'token')"
    )
