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
  x = np.concatenate([t["cls_token"][0], x]) + t["pos_embed"][0]
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
  return x[0] @ t["head.weight"].T + t["head.bias"]


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


def tome(r):
  """`between` of ToMe (arXiv:2210.09461, section 3), r pairs a block as long as there are some."""

  def between(block, x, sizes, keys, class_attention):
    firsts, seconds = range(0, len(x), 2), range(1, len(x), 2)
    unit = [key / np.linalg.norm(key) for key in keys]
    links = []
    for i in firsts:
      if i == 0:  # the class token
        continue
      alike = [unit[i] @ unit[j] for j in seconds]
      links.append((max(alike), i, seconds[int(np.argmax(alike))]))
    links = sorted(links, reverse=True)[: min(r, (len(x) - 1) // 2)]
    groups = {j: [j] for j in seconds}
    for _, i, j in links:
      groups[j].append(i)
    left = [i for i in firsts if i not in {i for _, i, _ in links}]
    merged = [np.average(x[g], axis=0, weights=sizes[g]) for g in groups.values()]
    total = [sizes[g].sum() for g in groups.values()]
    return np.array([*x[left], *merged]), np.array([*sizes[left], *total])

  return between


def evit(blocks, counts):
  """`between` of EViT (arXiv:2202.07800, section 3.2) for the counts that stay in its blocks."""

  def between(block, x, sizes, keys, class_attention):
    if block not in blocks:
      return x, sizes
    count = counts[blocks.index(block)]
    order = 1 + np.argsort(-class_attention[1:])
    stay, go = order[:count], order[count:]
    fused = [sum(class_attention[j] * x[j] for j in go)] if len(go) else []
    x = np.array([x[0], *x[stay], *fused])
    return x, np.ones(len(x))

  return between


def top_k(blocks, counts, score):
  """`before` that keeps the best of the block before by "paper" or "attention"."""

  def before(block, x, facts):
    if block not in blocks:
      return x
    order = 1 + np.argsort(-facts[score][1:])
    return x[[0, *order[: counts[blocks.index(block)]]]]

  return before
