"""Families of weights: recognizes the naming scheme of tensors, and translates it to timm's.

| family | marker | table |
|---|---|---|
| timm, DeiT, DeiT-III, DINO, MAE, LV-ViT, ours | `patch_embed.proj.weight` | `timm` |
| DINOv3, EVA-02 of their authors, and timm's | the same | `timm`, `rotary` |
| transformers: ViT, DeiT, ViTMAE, DINOv2 | `embeddings.patch_embeddings.…` | `transformers` |
| transformers: DINOv3 | `embeddings.patch_embeddings.weight` | `dinov3` |
| transformers: CLIP, SigLIP | `embeddings.patch_embedding.weight` | `clip` |
| OpenCLIP | `visual.conv1.weight` | `clip` |
| torchvision | `conv_proj.weight` | `torchvision` |
| Google's vision_transformer, AugReg, big_vision | `Transformer/encoderblock_0/…` | `google` |
| networks with other blocks, refused by name | | `refused` |

A family is a `base.Family`, whose table translates its names to timm's. The family's marker shows
the prefix before its names, such as `module.` or Lightning's `model.`, which is removed.
"""

import dataclasses
import itertools
import re

import numpy as np

from asvit_jax.core.errors import InputError
from asvit_jax.core.progress import log
from asvit_jax.weights import claims
from asvit_jax.weights.checks import check_numbers
from asvit_jax.weights.families import (
  base,
  clip,
  dinov3,
  google,
  refused,
  rotary,
  timm,
  torchvision,
  transformers,
)

_MOST_NETWORKS = 16  # in a file

FAMILIES = (
  *(transformers.FAMILY, clip.FAMILY, clip.OPENCLIP, torchvision.FAMILY, google.FAMILY),
  *(dinov3.FAMILY, timm.FAMILY),
)


def in_timms_names(stored, source):
  """Translates a source's tensors to timm's names and layouts.

  Args:
    stored: `Stored`, as read. If it holds several networks, `Stored.key` is the prefix of the names
      of the requested one.
    source: origin of the weights, for errors.

  Returns:
    `Stored`; unchanged if the family is unknown.

  Raises:
    InputError: a network with unsupported blocks, several networks, values that are not floating
      point or not finite, or a config beside it that contradicts the tensors.
  """
  for family in FAMILIES:
    prefixes = family.prefixes(stored.tensors)
    if not prefixes:
      continue
    prefix = _chosen(prefixes, source, stored.key)
    chosen = _without_others(stored.tensors, prefix, prefixes)
    if "architecture" not in stored.description:  # files of this package have supported blocks
      refused.check(family.needed(chosen, prefix), source, prefix)
    tensors, left_out = family.translate(chosen, prefix)
    unneeded = set(left_out)  # not checked
    check_numbers({k: v for k, v in chosen.items() if k not in unneeded}, source)
    if left_out:
      log(
        f"{source}: skipped tensors that the classifier does not need: {_listed(sorted(left_out))}"
      )
    if _reads_more(tensors):  # as DINOv2's: class token and mean of the patches
      log(f"{source}: skipped its head, which reads more than the class token")
      tensors = {k: v for k, v in tensors.items() if not k.startswith("head.")}
    # The source's own values, from a config beside the file, override the family's defaults.
    stated = stored.description.get("preprocessing", {})
    if stated.keys() >= {"mean", "std", "crop_ratio", "interpolation"}:  # all but what is usual
      stated = {"crop_mode": "center"} | stated
    preprocessing = {**family.preprocessing, **family.prepares(chosen, prefix), **stated}
    description = stored.description | ({"preprocessing": preprocessing} if preprocessing else {})
    facts = family.facts | _shown(tensors) | family.seen(chosen, prefix)
    claims.check(stored.claims, tensors, facts, source)
    facts |= stored.facts
    width = np.shape(tensors.get("patch_embed.proj.weight", ()))
    if facts.get("activation", "gelu") != "gelu" and "activation" not in stored.facts:
      log(f"{source}: activation {facts['activation']}, as no config states it")
    return dataclasses.replace(
      stored,
      usual=rotary.usual(facts, width[0]) if width else {},
      tensors=tensors,
      description=description,
      facts=facts,
      stated=stored.facts,
      family=family.title,
      assumes="mean" not in stored.description.get("preprocessing", {}),
    )
  refused.check(stored.tensors, source)
  check_numbers(stored.tensors, source)
  return stored


def _chosen(prefixes, source, key):
  if len(prefixes) > _MOST_NETWORKS:
    raise InputError(
      f"{source} holds {len(prefixes):,} networks, expected at most {_MOST_NETWORKS}: save the "
      "one you want in a separate file"
    )
  wanted = prefixes
  if key:
    wanted = [p for p in prefixes if _is_called(p, key)]
  elif "" in prefixes:  # a network without a prefix, beside others with prefixes
    wanted = [""]
    if len(prefixes) > 1:
      names = ", ".join(repr(prefix[:-1]) for prefix in prefixes if prefix)
      log(
        f"{source}: using the network without a prefix; the file also has {names} (--weights-key)"
      )
  if len(wanted) == 1:
    return wanted[0]
  listed = ", ".join(repr(prefix[:-1]) for prefix in prefixes)
  asked = f", and {key!r} is not one of them" if key and not wanted else ""
  raise InputError(
    f"{source} holds networks with the prefixes {listed}{asked}: choose one with --weights-key or "
    "config.init_key"
  )


def _is_called(prefix, key):
  """Whether a key is a prefix of names, with or without a wrapper's `module.` before it."""
  names = (prefix, base.WRAPPER.sub("", prefix))
  return any(n[:-1] == key or n.startswith((f"{key}.", f"{key}/")) for n in names)


def _without_others(tensors, prefix, prefixes):
  """The tensors without those of other networks in the file."""
  for other in prefixes:
    if other == prefix:
      continue
    if prefix.startswith(other):  # all other tensors belong to the other network
      ours = _until_apart(prefix, other)
      tensors = {k: v for k, v in tensors.items() if k.startswith(ours)}
    else:
      theirs = _until_apart(other, prefix)
      tensors = {k: v for k, v in tensors.items() if not k.startswith(theirs)}
  return tensors


def _until_apart(prefix, other):
  """The start of a prefix, up to the first part that differs from the other prefix."""
  parts, others = (re.findall(r"[^./]*[./]", text) for text in (prefix, other))
  same = sum(
    1
    for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(parts, others, strict=False))
  )
  return "".join(parts[: same + 1])


def _shown(tensors):
  """The fields of `Architecture` that timm's names show."""
  return {
    "qkv_bias": any(name.endswith(".attn.qkv.bias") for name in tensors),
    "layer_scale": "blocks.0.ls1.gamma" in tensors,
    "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
    "mlp_norm": "blocks.0.mlp.norm.weight" in tensors,
    "swiglu": rotary.is_gated(*(tensors.get(f"blocks.0.mlp.fc{i}.weight", ()) for i in (1, 2))),
    "dist_token": "dist_token" in tensors,
    "dist_head": "dist_token" in tensors and "head_dist.weight" in tensors,
    **_pooling(tensors),
  }


def _pooling(tensors):
  """The fields of `Architecture` for tokens before the patches, pooling and head."""
  registers = np.shape(tensors.get("reg_token", ()))
  texts = np.shape(tensors.get("text_head.weight", ()))
  pooled = "fc_norm.weight" in tensors or "cls_token" not in tensors
  maps, pre = "attn_pool.latent" in tensors, "norm_pre.weight" in tensors
  head = "classifier"
  if "head.weight" in tensors:
    head = "classifier" if "head.bias" in tensors else "projection"
  elif maps or pre or len(texts) == 2:
    head = "none"
  return {
    "class_token": "cls_token" in tensors,
    "registers": registers[1] if len(registers) == 3 else 0,
    "pool": "map" if maps else "avg" if pooled else "token",
    "norm_after_pool": "fc_norm.weight" in tensors,
    "norm_pre": pre,
    "patch_bias": "patch_embed.proj.bias" in tensors,
    "head": head,
    "text_width": texts[1] if len(texts) == 2 else 0,
  }


def _reads_more(tensors):
  if not {"head.weight", "cls_token"} <= tensors.keys():
    return False
  head, token = (np.shape(tensors[name]) for name in ("head.weight", "cls_token"))
  return bool(head and token) and head[-1] == 2 * token[-1]


def _listed(names):
  return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
