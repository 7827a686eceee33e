"""A vision transformer in NumPy, float64, one image at a time; pruned tokens are taken out.

Written from the papers and from timm's parameter layout alone, and shares no code with the library:
linear layers are `x @ weight.T + bias`, convolutions have (out, in, height, width) weights.
"""

import math

import numpy as np


def forward(tensors, image, heads, epsilon, prune_before=(), thresholds=()):
  """One image (height, width, 3) through the network of timm-named `tensors`.

  Returns:
    (classes,) logits, (stages, n) bool of the tokens each stage keeps, and for each stage a
    dictionary of {token: score} of those that were left.
  """
  t = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
  x = patches(image, t["patch_embed.proj.weight"], t["patch_embed.proj.bias"])
  patch_count, before = len(x), [t["cls_token"][0]]
  before += [t["dist_token"][0]] if "dist_token" in t else []  # DeiT's
  first = len(before)
  x = np.concatenate([*before, x]) + t["pos_embed"][0]
  left = np.arange(patch_count)  # patch tokens still there
  keeps, all_scores, scores = [], [], None
  for i in range(1 + max(int(name.split(".")[1]) for name in t if name.startswith("blocks."))):
    if i in prune_before:
      all_scores.append(dict(zip(left.tolist(), scores, strict=True)))
      stay = scores > thresholds[len(keeps)]
      x, left = np.concatenate([x[:first], x[first:][stay]]), left[stay]
      keeps.append(np.isin(np.arange(patch_count), left))
    block = {k.split(".", 2)[2]: v for k, v in t.items() if k.startswith(f"blocks.{i}.")}
    x, scores = run_block(block, x, heads, epsilon)
    scores = scores[first:]
  x = layer_norm(x, t["norm.weight"], t["norm.bias"], epsilon)
  logits = x[0] @ t["head.weight"].T + t["head.bias"]
  if "head_dist.weight" in t:
    logits = (logits + x[1] @ t["head_dist.weight"].T + t["head_dist.bias"]) / 2
  return logits, np.array(keeps), all_scores


def patches(image, weight, bias):
  """A convolution whose stride is its size: every patch times the weights."""
  size = weight.shape[-1]
  rows, columns = image.shape[0] // size, image.shape[1] // size
  cut = image.astype(np.float64).reshape(rows, size, columns, size, 3)
  return np.einsum("ahbwi,oihw->abo", cut, weight).reshape(rows * columns, -1) + bias


def run_block(t, x, heads, epsilon):
  """A pre-norm block; also the score of every token, Eq. (4)-(6) of arXiv:2209.13802."""
  d = x.shape[1]
  y = layer_norm(x, t["norm1.weight"], t["norm1.bias"], epsilon)
  qkv = y @ t["attn.qkv.weight"].T + t["attn.qkv.bias"]
  contexts, class_rows = [], []
  for h in range(heads):
    q, k, v = (qkv[:, j * d + h * d // heads :][:, : d // heads] for j in range(3))
    attention = softmax(q @ k.T / math.sqrt(d // heads))
    contexts.append(attention @ v)
    class_rows.append(attention[0])
  norms = np.array([np.linalg.norm(context, axis=1) for context in contexts])  # (h, n)
  scores = (norms / norms.sum(axis=0) * np.array(class_rows)).sum(axis=0)
  y = np.concatenate(contexts, axis=1) @ t["attn.proj.weight"].T + t["attn.proj.bias"]
  x = x + y * t.get("ls1.gamma", 1)
  y = layer_norm(x, t["norm2.weight"], t["norm2.bias"], epsilon)
  y = gelu(y @ t["mlp.fc1.weight"].T + t["mlp.fc1.bias"])
  return x + (y @ t["mlp.fc2.weight"].T + t["mlp.fc2.bias"]) * t.get("ls2.gamma", 1), scores


def layer_norm(x, scale, bias, epsilon):
  """Over the last axis."""
  centred = x - x.mean(axis=-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * scale + bias


def softmax(x):
  """Over the last axis."""
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def gelu(x):
  """The exact one."""
  return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
