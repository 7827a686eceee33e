"""LV-ViT in PyTorch's functions, from the published names; shares no code with the library."""

import torch
from torch.nn import functional as F


def forward(tensors, images, heads):
  """Logits of the dense network: (b, classes) prediction, class head, and (b, n, classes)."""
  t = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
  x = stem(t, torch.from_numpy(images).permute(0, 3, 1, 2))
  x = F.conv2d(x, t["patch_embed.proj.weight"], t["patch_embed.proj.bias"], stride=4)
  x = x.flatten(2).transpose(1, 2)
  x = torch.cat([t["cls_token"].expand(len(x), -1, -1), x], dim=1) + t["pos_embed"]
  for i in range(1 + max(int(name.split(".")[1]) for name in t if name.startswith("blocks."))):
    x = block(
      {k.split(".", 2)[2]: v for k, v in t.items() if k.startswith(f"blocks.{i}.")}, x, heads
    )
  x = layer_norm(t, "norm", x)
  head, aux = linear(t, "head", x[:, 0]), linear(t, "aux_head", x[:, 1:])
  return head + 0.5 * aux.amax(dim=1), head, aux


def stem(t, x):
  """(b, 3, h, w) -> (b, 64, h / 2, w / 2) with the running statistics."""
  for i, (stride, padding) in enumerate(((2, 3), (1, 1), (1, 1)), 1):
    x = F.conv2d(x, t[f"patch_embed.conv{i}.weight"], stride=stride, padding=padding)
    norm = {k.rsplit(".", 1)[1]: v for k, v in t.items() if k.startswith(f"patch_embed.bn{i}.")}
    x = F.relu(F.batch_norm(x, norm.pop("running_mean"), norm.pop("running_var"), **norm))
  return x


def block(t, x, heads):
  """A pre-norm block whose residual branches count half."""
  b, n, d = x.shape
  qkv = linear(t, "attn.qkv", layer_norm(t, "norm1", x)).reshape(b, n, 3, heads, d // heads)
  q, k, v = qkv.permute(2, 0, 3, 1, 4)
  context = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
  x = x + linear(t, "attn.proj", context) / 2
  y = F.gelu(linear(t, "mlp.fc1", layer_norm(t, "norm2", x)))
  return x + linear(t, "mlp.fc2", y) / 2


def linear(t, name, x):
  """A linear layer, with its bias where there is one."""
  return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))


def layer_norm(t, name, x):
  """Over the last axis."""
  return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps=1e-5)
