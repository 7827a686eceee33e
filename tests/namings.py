"""timm's tensors in the names and layouts of others, written from their sources, not from ours."""

import json

import numpy as np
import safetensors.numpy


def split(tensors, block):
  """The tensors of a block, q, k and v apart: {"q.weight": …, "norm1.bias": …}."""
  inside = {k.split(".", 2)[2]: v for k, v in tensors.items() if k.startswith(f"blocks.{block}.")}
  for leaf in ("weight", "bias"):
    parts = np.split(inside.pop(f"attn.qkv.{leaf}"), 3)
    inside |= {f"{name}.{leaf}": part for name, part in zip("qkv", parts, strict=True)}
  return inside


def depth(tensors):
  return 1 + max(int(k.split(".")[1]) for k in tensors if k.startswith("blocks."))


def transformers(tensors, model="vit", in_memory=False):
  """As ViTForImageClassification, or DeiTForImageClassificationWithTeacher, saves them."""
  out = {}
  block = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
  }
  layer = "encoder.layer"
  if in_memory:  # of version 5
    layer = "layers"
    block |= {part: f"attention.{part}_proj" for part in "qkv"}
    block |= {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
  for i in range(depth(tensors)):
    for name, value in split(tensors, i).items():
      module, _, leaf = name.rpartition(".")
      out[f"{model}.{layer}.{i}.{block[module]}.{leaf}"] = value
  names = {
    "cls_token": f"{model}.embeddings.cls_token",
    "dist_token": f"{model}.embeddings.distillation_token",
    "pos_embed": f"{model}.embeddings.position_embeddings",
    "patch_embed.proj.weight": f"{model}.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": f"{model}.embeddings.patch_embeddings.projection.bias",
    "norm.weight": f"{model}.layernorm.weight",
    "norm.bias": f"{model}.layernorm.bias",
  }
  distilled = "head_dist.weight" in tensors
  for leaf in ("weight", "bias"):
    names[f"head.{leaf}"] = f"{'cls_' * distilled}classifier.{leaf}"
    names[f"head_dist.{leaf}"] = f"distillation_classifier.{leaf}"
  return out | {theirs: tensors[ours] for ours, theirs in names.items() if ours in tensors}


def google(tensors, heads):
  """As google-research/vision_transformer writes its .npz files."""
  width = tensors["norm.weight"].size
  out = {
    "cls": tensors["cls_token"],
    "embedding/kernel": tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
    "embedding/bias": tensors["patch_embed.proj.bias"],
    "Transformer/posembed_input/pos_embedding": tensors["pos_embed"],
    "Transformer/encoder_norm/scale": tensors["norm.weight"],
    "Transformer/encoder_norm/bias": tensors["norm.bias"],
  }
  if "head.weight" in tensors:
    out |= {"head/kernel": tensors["head.weight"].T, "head/bias": tensors["head.bias"]}
  for i in range(depth(tensors)):
    t, block = split(tensors, i), f"Transformer/encoderblock_{i}"
    for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
      out[f"{block}/{theirs}/scale"] = t[f"{ours}.weight"]
      out[f"{block}/{theirs}/bias"] = t[f"{ours}.bias"]
    for ours, theirs in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
      out[f"{block}/MlpBlock_3/{theirs}/kernel"] = t[f"mlp.{ours}.weight"].T
      out[f"{block}/MlpBlock_3/{theirs}/bias"] = t[f"mlp.{ours}.bias"]
    attention = f"{block}/MultiHeadDotProductAttention_1"
    for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
      out[f"{attention}/{theirs}/kernel"] = t[f"{ours}.weight"].T.reshape(width, heads, -1)
      out[f"{attention}/{theirs}/bias"] = t[f"{ours}.bias"].reshape(heads, -1)
    out[f"{attention}/out/kernel"] = t["attn.proj.weight"].T.reshape(heads, -1, width)
    out[f"{attention}/out/bias"] = t["attn.proj.bias"]
  return out


def scenic(tensors, heads):
  """The parameters of Scenic's ViT (projects/baselines/vit.py), of a class token or of the mean."""
  out = google({"cls_token": 0} | tensors, heads)
  if "cls_token" not in tensors:
    del out["cls"]
  names = {"LayerNorm_2": "LayerNorm_1", "MlpBlock_3": "MlpBlock_0", "head/": "output_projection/"}
  names |= {"MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0"}
  for ours, theirs in names.items():
    out = {name.replace(ours, theirs): value for name, value in out.items()}
  return out


def torchvision(tensors):
  """As torchvision's VisionTransformer names them."""
  block = {
    "norm1": "ln_1.",
    "attn.qkv": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj.",
    "norm2": "ln_2.",
    "mlp.fc1": "mlp.0.",
    "mlp.fc2": "mlp.3.",
  }
  rest = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.weight": "conv_proj.weight",
    "patch_embed.proj.bias": "conv_proj.bias",
    "norm.weight": "encoder.ln.weight",
    "norm.bias": "encoder.ln.bias",
    "head.weight": "heads.head.weight",
    "head.bias": "heads.head.bias",
  }
  out = {}
  for name, value in tensors.items():
    if name.startswith("blocks."):
      _, i, inside = name.split(".", 2)
      module, _, leaf = inside.rpartition(".")
      out[f"encoder.layers.encoder_layer_{i}.{block[module]}{leaf}"] = value
    else:
      out[rest[name]] = value
  return out


def deit3(tensors):
  """As DeiT-III's authors write them: layer scale, and no position for the class token."""
  names = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
  out = {}
  for name, value in tensors.items():
    for ours, theirs in names.items():
      name = name.replace(ours, theirs)
    out[name] = value
  return out | {"pos_embed": tensors["pos_embed"][:, 1:]}


def write_repository(directory, tensors, config, processor=None, shards=1):
  """A directory as the hub has it: weights, perhaps in shards, and their configs."""
  directory.mkdir(parents=True, exist_ok=True)
  (directory / "config.json").write_text(json.dumps(config))
  if processor is not None:
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
  tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
  if shards == 1:
    safetensors.numpy.save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory
  where = {}
  for shard, names in enumerate(np.array_split(sorted(tensors), shards)):
    file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
    part = {str(name): tensors[name] for name in names}
    safetensors.numpy.save_file(part, directory / file, {"format": "pt"})
    where |= dict.fromkeys(part, file)
  index = {"metadata": {}, "weight_map": where}
  (directory / "model.safetensors.index.json").write_text(json.dumps(index))
  return directory


def openclip(tensors):
  """As OpenCLIP saves an image tower, with a part of the text tower beside it."""
  block = {
    "norm1": "ln_1.",
    "attn.qkv": "attn.in_proj_",
    "attn.proj": "attn.out_proj.",
    "norm2": "ln_2.",
    "mlp.fc1": "mlp.c_fc.",
    "mlp.fc2": "mlp.c_proj.",
  }
  text = np.ones((3, 3), np.float32)
  out = {"positional_embedding": text, "text_projection": text, "logit_scale": text[0, 0]}
  out |= {"transformer.resblocks.0.ln_1.weight": text[0], "ln_final.bias": text[0]}
  rest = {
    "cls_token": ("class_embedding", lambda v: v[0, 0]),
    "pos_embed": ("positional_embedding", lambda v: v[0]),
    "patch_embed.proj.weight": ("conv1.weight", lambda v: v),
    "head.weight": ("proj", lambda v: v.T),
  }
  for name, value in tensors.items():
    if name.startswith("blocks."):
      _, i, inside = name.split(".", 2)
      module, _, leaf = inside.rpartition(".")
      out[f"visual.transformer.resblocks.{i}.{block[module]}{leaf}"] = value
    elif name.startswith("norm"):
      out[f"visual.{name.replace('norm_pre', 'ln_pre').replace('norm', 'ln_post')}"] = value
    else:
      theirs, layout = rest[name]
      out[f"visual.{theirs}"] = layout(value)
  return out


def big_vision(tensors, heads, stacked):
  """As big_vision saves SigLIP's image tower, beside the text tower, or a network with a head."""
  width = tensors["norm.weight"].size
  out = google({"cls_token": 0} | tensors, heads)
  del out["cls"]
  names = {"LayerNorm_2": "LayerNorm_1", "MlpBlock_3": "MlpBlock_0"}
  names |= {"MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0"}
  names |= {"Transformer/posembed_input/": ""}
  for ours, theirs in names.items():
    out = {name.replace(ours, theirs): value for name, value in out.items()}
  if "attn_pool.latent" in tensors:
    pool = {k.removeprefix("attn_pool."): v for k, v in tensors.items() if k.startswith("attn_")}
    of, attention = "MAPHead_0", "MAPHead_0/MultiHeadDotProductAttention_0"
    out |= {f"{of}/probe": pool["latent"], f"{of}/LayerNorm_0/scale": pool["norm.weight"]}
    out[f"{of}/LayerNorm_0/bias"] = pool["norm.bias"]
    for leaf in ("weight", "bias"):
      pool |= dict(zip((f"k.{leaf}", f"v.{leaf}"), np.split(pool[f"kv.{leaf}"], 2), strict=True))
    for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
      out[f"{attention}/{theirs}/kernel"] = pool[f"{ours}.weight"].T.reshape(width, heads, -1)
      out[f"{attention}/{theirs}/bias"] = pool[f"{ours}.bias"].reshape(heads, -1)
    out[f"{attention}/out/kernel"] = pool["proj.weight"].T.reshape(heads, -1, width)
    out[f"{attention}/out/bias"] = pool["proj.bias"]
    for i in range(2):
      out[f"{of}/MlpBlock_0/Dense_{i}/kernel"] = pool[f"mlp.fc{i + 1}.weight"].T
      out[f"{of}/MlpBlock_0/Dense_{i}/bias"] = pool[f"mlp.fc{i + 1}.bias"]
  if stacked:
    blocks = [k for k in out if "/encoderblock_0/" in k]
    for name in blocks:
      parts = [out.pop(name.replace("_0/", f"_{i}/", 1)) for i in range(depth(tensors))]
      out[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(parts)
  if "head.weight" in tensors:
    return out
  text = np.ones((3, 3), np.float32)
  beside = {"params/txt/pos_embedding": text, "params/txt/head/kernel": text, "params/t": text[0]}
  return {f"params/img/{name}": value for name, value in out.items()} | beside
