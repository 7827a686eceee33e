"""The methods in NumPy, float64, one image at a time, written from their papers alone."""

import math

import numpy as np
import oracle


def run(tensors, image, heads, epsilon, between=None, before=None):
  """One image (height, width, 3) through the network of timm-named `tensors`.

  Args:
    tensors: {name: array}.
    image: normalised.
    heads: of attention.
    epsilon: of norms.
    between: function of (block, x, sizes, keys, class_attention) that returns x and sizes, called
      between attention and MLP; keys (n, c) and class_attention (n,) are means over the heads.
    before: function of (block, x, facts of the block before) that returns x.

  Returns:
    (classes,) logits.
  """
  t = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
  x = oracle.patches(image, t["patch_embed.proj.weight"], t["patch_embed.proj.bias"])
  before_patches = [t["cls_token"][0], *([t["dist_token"][0]] if "dist_token" in t else [])]
  x = np.concatenate([*before_patches, x]) + t["pos_embed"][0]
  sizes, facts = np.ones(len(x)), None
  for i in range(1 + max(int(name.split(".")[1]) for name in t if name.startswith("blocks."))):
    b = {k.split(".", 2)[2]: v for k, v in t.items() if k.startswith(f"blocks.{i}.")}
    if before is not None:
      x = before(i, x, facts)
      sizes = np.ones(len(x))
    x, facts = attention(b, x, sizes, heads, epsilon)
    if between is not None:
      x, sizes = between(i, x, sizes, facts["keys"], facts["attention"])
    y = oracle.layer_norm(x, b["norm2.weight"], b["norm2.bias"], epsilon)
    y = oracle.gelu(y @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"])
    x = x + y @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
  x = oracle.layer_norm(x, t["norm.weight"], t["norm.bias"], epsilon)
  logits = x[0] @ t["head.weight"].T + t["head.bias"]
  if "head_dist.weight" in t:
    logits = (logits + x[1] @ t["head_dist.weight"].T + t["head_dist.bias"]) / 2
  return logits


def attention(b, x, sizes, heads, epsilon):
  """x after attention whose logits have log(size) added; what methods decide by."""
  d = x.shape[1]
  y = oracle.layer_norm(x, b["norm1.weight"], b["norm1.bias"], epsilon)
  qkv = y @ b["attn.qkv.weight"].T + b["attn.qkv.bias"]
  contexts, keys, rows = [], [], []
  for h in range(heads):
    q, k, v = (qkv[:, j * d + h * d // heads :][:, : d // heads] for j in range(3))
    weights = oracle.softmax(q @ k.T / math.sqrt(d // heads) + np.log(sizes))
    contexts.append(weights @ v)
    keys.append(k)
    rows.append(weights[0])
  norms = np.array([np.linalg.norm(context, axis=1) for context in contexts])
  facts = {
    "keys": np.mean(keys, axis=0),
    "attention": np.mean(rows, axis=0),
    "paper": (norms / norms.sum(axis=0) * np.array(rows)).sum(axis=0),
  }
  out = np.concatenate(contexts, axis=1) @ b["attn.proj.weight"].T + b["attn.proj.bias"]
  return x + out, facts


def tome(r, prefix=1):
  """`between` of ToMe (arXiv:2210.09461, section 3), r pairs a block as long as there are some.

  The tokens before the patches are linked to nothing, and stay the first.
  """

  def between(block, x, sizes, keys, class_attention):
    firsts, seconds = range(0, len(x), 2), range(1, len(x), 2)
    unit = [key / np.linalg.norm(key) for key in keys]
    links = []
    for i in firsts:
      alike = {unit[i] @ unit[j]: j for j in seconds if j >= prefix}
      if i >= prefix and alike:
        links.append((max(alike), i, alike[max(alike)]))
    links = sorted(links, reverse=True)[: min(r, (len(x) - prefix) // 2)]
    gone = {i for _, i, _ in links}
    left = [*range(prefix), *(i for i in firsts if i >= prefix and i not in gone)]
    groups = [[i] for i in left]
    groups += [[j, *(i for _, i, to in links if to == j)] for j in seconds if j >= prefix]
    merged = [np.average(x[g], axis=0, weights=sizes[g]) for g in groups]
    return np.array(merged), np.array([sizes[g].sum() for g in groups])

  return between


def evit(blocks, counts, prefix=1):
  """`between` of EViT (arXiv:2202.07800, section 3.2) for the counts that stay in its blocks."""

  def between(block, x, sizes, keys, class_attention):
    if block not in blocks:
      return x, sizes
    count = counts[blocks.index(block)]
    order = prefix + np.argsort(-class_attention[prefix:])
    stay, go = order[:count], order[count:]
    fused = [sum(class_attention[j] * x[j] for j in go)] if len(go) else []
    x = np.array([*x[:prefix], *x[stay], *fused])
    return x, np.ones(len(x))

  return between


def top_k(blocks, counts, score, prefix=1):
  """`before` that keeps the best of the block before by "paper" or "attention"."""

  def before(block, x, facts):
    if block not in blocks:
      return x
    order = prefix + np.argsort(-facts[score][prefix:])
    return x[[*range(prefix), *order[: counts[blocks.index(block)]]]]

  return before
