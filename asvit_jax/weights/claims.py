"""Holds what a config says of the tensors beside it against what they show.

A config of other weights, or a file that lost some of its tensors, would else give a network that
runs, and predicts something else.
"""

import dataclasses
from typing import Any

import numpy as np

from asvit_jax.core import sizes
from asvit_jax.core.errors import InputError
from asvit_jax.core.printable import shown
from asvit_jax.weights.names import numbers_of_blocks

# {fact: what tensors have}; for those that are there or not, with and without it.
_PHRASES = {
  "depth": "{} blocks",
  "width": "width {}",
  "patch_size": "patches of {} pixels",
  "channels": "{} channels of images",
  **dict.fromkeys(("classes", "classified", "projected"), "a head of {} outputs"),
  "hidden": "MLPs of width {}",
  "registers": "{} registers",
}
_THERE = {
  "class_token": ("a class token", "no class token"),
  "norm_pre": ("a norm before the blocks", "no norm before the blocks"),
  "layer_scale": ("layer scales", "no layer scales"),
  "qkv_bias": ("biases of queries and values", "no biases of queries and values"),
  "qk_norm": ("norms of queries and keys", "no norms of queries and keys"),
  "mlp_norm": ("norms within the MLPs", "no norms within the MLPs"),
  "swiglu": ("gated MLPs", "MLPs without gates"),
  "norm_after_pool": ("a norm of the mean, fc_norm", "no norm of the mean, fc_norm"),
  "pos_embed": ("a position embedding", "no position embedding"),
  "attention_pooling": ("an attention pooling", "no attention pooling"),
  "siglips_head": ("an attention pooling or a classifier", "no attention pooling, no classifier"),
  "classifier": ("a classifier", "no classifier"),
  "dinov3": ("the rotary positions of DINOv3", "no registers for the rotary positions of DINOv3"),
  "rotary": ("rotary positions", "not the form of a network with rotary positions"),
}
# Of rotary positions: the values that there are here, which no tensor shows.
_ROTARY = {
  "dinov3": {"rope_type": "dinov3", "rope_rotate_half": True},
  "eva02": {"rope_type": "cat", "rope_rotate_half": False},
}
_EVERY_ROTARY = {"rope_grid_indexing": "ij", "rope_grid_offset": 0}


@dataclasses.dataclass(frozen=True)
class Claim:
  """What a key of a config says of the tensors.

  Attributes:
    fact: what it is about: a key of `shown_by`, "image_size" or "heads".
    expected: the value that the tensors must show.
    key: the key, and its file, for the error: "patch_size of its config.json".
    given: the key's value, if it is not `expected` itself.
  """

  fact: str
  expected: Any
  key: str
  given: Any = None


def shown_by(tensors, facts):
  """{fact: value} of what tensors show of their network; facts that they do not show are missing.

  Args:
    tensors: {timm name: array}.
    facts: {field of `Architecture`: value} that the family of the tensors shows.
  """
  found = {name: bool(facts.get(name, name == "pos_embed")) for name in _THERE}
  rope, head = facts.get("rope", ""), np.shape(tensors.get("head.weight", ()))
  found |= {"rotary": bool(rope), "dinov3": rope == "dinov3"}
  found["attention_pooling"] = "attn_pool.latent" in tensors
  found["classifier"] = facts.get("head") == "classifier" and len(head) == 2
  found |= {"registers": facts.get("registers", 0), "depth": len(numbers_of_blocks(tensors))}
  found |= _ROTARY.get(rope, {}) | (_EVERY_ROTARY if rope else {})
  found["siglips_head"] = found["attention_pooling"] or found["classifier"]
  kernel = np.shape(tensors.get("patch_embed.proj.weight", ()))
  if len(kernel) == 4:
    found["width"] = kernel[0]
    if "patch_embed.conv1.weight" not in tensors:  # other stems begin with other convolutions
      found |= {"channels": kernel[1], "patch_size": sizes.plain(kernel[2:])}
  if len(head) == 2:
    of = {"classifier": "classified", "projection": "projected"}
    found |= dict.fromkeys({"classes", of.get(facts.get("head"), "classes")}, head[0])
  first = np.shape(tensors.get("blocks.0.mlp.fc1.weight", ()))
  if len(first) == 2:
    found["hidden"] = first[0] // (1 + found["swiglu"])
  positions = np.shape(tensors.get("pos_embed", ()))
  if len(positions) == 3:
    found["positions"] = positions[1]
  return found


def check(claims, tensors, facts, source):
  """Raises InputError for the first claim that the tensors contradict, with both values.

  Args:
    claims: `Claim`s.
    tensors: as for `shown_by`.
    facts: as for `shown_by`.
    source: the weights, for the error.
  """
  have = shown_by(tensors, facts)
  prefix = have["class_token"] + facts.get("dist_token", False) + have["registers"]
  for claim in claims:
    but = _contradiction(claim, have, prefix)
    if but:
      given = claim.expected if claim.given is None else claim.given
      given = given if claim.key.startswith("num_attention_heads") else shown(given, 60)
      raise InputError(f"{source}: {claim.key} is {given}, but {but}")


def _contradiction(claim, have, prefix):
  """What the tensors have instead of a claim, and what to do; "" if they agree."""
  expected, fact = claim.expected, claim.fact
  other = "give the config that belongs to these weights, or correct it"
  if fact == "heads":
    width = have.get("width", 0)
    return width % expected and f"the width of its tensors, {width}, is no multiple of it: {other}"
  if fact == "image_size":
    if not {"positions", "patch_size"} <= have.keys():
      return ""
    sides = zip(sizes.height_width(expected), sizes.height_width(have["patch_size"]), strict=True)
    patches = int(np.prod([side // patch for side, patch in sides]))
    if have["positions"] - patches in (0, min(prefix, 1), prefix):
      return ""
    return (
      f"its tensors have {have['positions']} positions, not {patches} for patches and 0 to "
      f"{prefix} for the tokens before them: {other}"
    )
  if fact not in have or have[fact] == expected:
    return ""
  if fact in _THERE:
    return f"its tensors have {_THERE[fact][not have[fact]]}: {other}"
  if fact in _PHRASES:
    return f"its tensors have {_PHRASES[fact].format(have[fact])}: {other}"
  return (
    f"rotary positions like those of its tensors are only supported with {have[fact]!r}: correct "
    "it, or use other weights"
  )
