"""docs/your_vit.md, block by block, on small random networks of each library.

timm and transformers write theirs; of OpenCLIP, big_vision and Scenic, `namings` writes the names.
"""

import json
import re
import shutil
import sys
import types
from pathlib import Path

import namings
import numpy as np
import pytest
import tiny
from command_lines import run
from PIL import Image
from test_readme_commands import commands
from torch_models import randomized

from asvit_jax import vit, weights
from asvit_jax.network import load

pytestmark = pytest.mark.external

CLASSES = ("ant", "bee", "cat")
TOWER = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=48)
IMAGES = tiny.images(tiny.arch(), 4)
PIXELS = IMAGES.transpose(0, 3, 1, 2).copy()
SMALL = ("--config.eval.batch_size=5",)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, short_ladders):
  """A directory with the images that the page names, in which its blocks run."""
  monkeypatch.chdir(tmp_path)
  photos = tiny.write_folder(tmp_path / "DIR") / "train" / "ant"
  shutil.copytree(photos, "photos")
  Image.open(photos / "0.jpg").save("photo.jpg")
  return tmp_path


@pytest.fixture(scope="module")
def page(repository):
  """{heading: its text}; the text before the first heading is that of "first"."""
  text = (repository / "docs" / "your_vit.md").read_text()
  first, *rest = re.split(r"^## ", text, flags=re.MULTILINE)
  return {"first": first} | {part.partition("\n")[0]: part.partition("\n")[2] for part in rest}


def examples(text):
  """The blocks of Python in a text."""
  return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def follow(code, **names):
  """Runs a block of Python where some names have values; returns all names."""
  exec(compile(code, "docs/your_vit.md", "exec"), names)
  return names


def evaluated(text):
  """Runs the commands of a section; returns the last result of each by its name."""
  found = {}
  for name, arguments in commands(re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)):
    found[name] = run(name, *arguments, *(SMALL if name == "evaluate" else ()))
  assert found["evaluate"]["images"] == 10
  return found


def out(model, **inputs):
  """What a PyTorch module returns."""
  import torch

  with torch.no_grad():
    return model(**inputs)


def assert_gives(network, expected):
  expected = np.asarray(expected)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(network(IMAGES, "dense").logits, expected, atol=2e-5)


def test_timm(page, timm):
  import torch

  arguments = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
  model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **arguments)
  (block,) = examples(page["timm"])
  follow(block, model=randomized(model), arguments=arguments)
  evaluated(page["timm"])
  with torch.no_grad():
    assert_gives(load("my_vit"), model(torch.from_numpy(PIXELS)))
  (block,) = examples(page["first"])
  network = follow(block)["network"]
  assert network.prunes
  assert load("pruned.safetensors") == network


def transformers_vit(name, **changes):
  transformers = pytest.importorskip("transformers")
  kind = re.split("For|Model", name)[0]
  config = getattr(transformers, f"{kind}Config")(**TOWER, image_size=32, patch_size=8, **changes)
  return randomized(getattr(transformers, name)(config))


@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
def test_transformers(page, transformers, kind):
  import torch

  names = {"id2label": dict(enumerate(CLASSES)), "label2id": {c: i for i, c in enumerate(CLASSES)}}
  model = transformers_vit(f"{kind}ForImageClassification", **names)
  processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
  follow(examples(page["transformers"])[0], model=model, processor=processor)
  assert_gives(load("my_vit"), out(model, pixel_values=torch.from_numpy(PIXELS)).logits)
  if kind == "ViT":
    assert evaluated(page["transformers"])["evaluate"]["kl"] > 0
    assert load("pruned.safetensors").classes == CLASSES


@pytest.mark.parametrize("name", ["Dinov2Model", "ViTMAEForPreTraining"])
def test_encoders_of_transformers(page, name):
  pytest.importorskip("transformers")
  import torch

  import asvit_jax

  masked = name.startswith("ViTMAE")
  model = transformers_vit(name, **dict(mask_ratio=0.0) if masked else dict(mlp_ratio=2))
  # All patches, in their order.
  given = {"noise": torch.arange(16.0)[None].repeat(4, 1)} if masked else {}
  model.save_pretrained("my_encoder")
  encoder = examples(page["transformers"])[1]
  tokens = follow(encoder, asvit_jax=asvit_jax, images=IMAGES)["tokens"]
  model = getattr(model, "vit", model)
  expected = out(model, pixel_values=torch.from_numpy(PIXELS), **given).last_hidden_state
  np.testing.assert_allclose(tokens, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_zero_shot_with_transformers(page, transformers, kind):
  import torch

  text = TOWER | dict(vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
  config = getattr(transformers, f"{kind}Config")(
    vision_config=TOWER | dict(image_size=32, patch_size=8),
    text_config=text | dict(max_position_embeddings=8),
    **({"projection_dim": 16} if kind == "CLIP" else {}),
  )
  model = randomized(getattr(transformers, f"{kind}Model")(config))
  model.save_pretrained("my_clip")
  tokens = torch.tensor([[1, 7, 9, 2], [1, 30, 31, 2], [1, 8, 3, 2]])

  def processor(text, padding, return_tensors):
    assert (text[1], padding, return_tensors) == ("a photo of a bee", "max_length", "pt")
    return {"input_ids": tokens}

  _, block, write = examples(page["Zero-shot: classes from texts"])
  follow(block + write, model=model, processor=processor, names=CLASSES)
  if kind == "CLIP":
    result = evaluated(page["Zero-shot: classes from texts"])
    assert {row["class"] for row in result["predict"]["predictions"][0]["top5"]} == set(CLASSES)
    assert load("pruned.safetensors").prunes
  network = load("my_clip").zero_shot("texts.npz")
  found = out(model, input_ids=tokens, pixel_values=torch.from_numpy(PIXELS))
  assert_gives(network, found.logits_per_image)


class OpenClip:
  """What the page asks of a model of OpenCLIP; its tensors have the names of `namings`."""

  def __init__(self):
    import torch

    self.arch = tiny.arch(
      **dict(depth=3, prune_before=(), norm_pre=True, patch_bias=False, norm_epsilon=1e-5),
      **dict(head="projection", classes=16, activation="quick_gelu"),
    )
    self.params = tiny.params(self.arch)
    tensors = namings.openclip(weights.to_timm(self.params))
    self.tensors = {name: torch.tensor(value) for name, value in tensors.items()}
    self.logit_scale = torch.tensor(np.log(20.0))

  def state_dict(self):
    return self.tensors

  def encode_text(self, tokens):
    import torch

    return torch.tensor(np.eye(3, 16)[list(tokens)])

  def module(self):
    """Stands for `open_clip`: writes its config as its `push_to_hf_hub` does."""
    found = types.ModuleType("open_clip")
    vision = dict(width=24, head_width=8, layers=3, image_size=32, patch_size=8)
    found.get_model_config = lambda name: {
      "embed_dim": 16,
      "quick_gelu": True,
      "vision_cfg": vision,
    }
    found.get_tokenizer = lambda name: lambda texts: map(int, range(len(texts)))
    found.push_to_hf_hub = types.ModuleType("open_clip.push_to_hf_hub")
    steps = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "resize_mode": "shortest"}
    found.push_to_hf_hub.save_config_for_hf = lambda model, config_path, model_config: (
      config_path.write_text(json.dumps({"model_cfg": model_config, "preprocess_cfg": steps}))
    )
    return found


def test_openclip_and_its_texts(page, monkeypatch):
  pytest.importorskip("torch")
  model = OpenClip()
  module = model.module()
  monkeypatch.setitem(sys.modules, "open_clip", module)
  monkeypatch.setitem(sys.modules, "open_clip.push_to_hf_hub", module.push_to_hf_hub)
  (save,) = examples(page["OpenCLIP"])
  names = follow(save, model=model, name="ViT-B-32-quickgelu")
  texts, _, write = examples(page["Zero-shot: classes from texts"])
  follow(texts + write, **names | {"names": list(CLASSES)})
  network = load("my_clip")
  assert network.preprocessing.mean == (0.4, 0.5, 0.6)
  features = np.asarray(tiny.run_dense(model.arch, model.params, IMAGES).logits)
  assert_gives(network, features)
  cosines = features[:, :3] / np.linalg.norm(features, axis=1, keepdims=True)
  assert_gives(network.zero_shot("texts.npz"), 20 * cosines)


def test_big_vision_s_siglip(page):
  arch = tiny.arch(
    **dict(depth=3, prune_before=(), class_token=False, pool="map", activation="gelu_tanh"),
    **dict(head="none", classes=24),
  )
  params = tiny.params(arch)
  file = namings.big_vision(weights.to_timm(params), arch.heads, True)
  np.savez("webli_en_b16.npz", **file)
  texts = {"names": CLASSES, "features": np.eye(3, 24), "scale": np.full(1, 10.0)}
  np.savez("texts.npz", **texts, bias=np.full(1, -5.0))
  evaluated(page["big_vision, and Google's vision_transformer"])
  features = np.asarray(tiny.run_dense(arch, params, IMAGES).logits)
  cosines = features[:, :3] / np.linalg.norm(features, axis=1, keepdims=True)
  assert_gives(load("webli_en_b16.npz").zero_shot("texts.npz"), 10 * cosines - 5)
  np.savez("tree.npz", **{k.removeprefix("params/"): v for k, v in file.items()})  # load_params
  assert load("tree.npz") == load("webli_en_b16.npz")


@pytest.mark.parametrize("kind", ["google", "big_vision"])
def test_classifiers_of_google_and_big_vision(kind):
  changes = dict(class_token=False, pool="avg", activation="gelu_tanh")
  arch = tiny.arch(depth=3, prune_before=(), **({} if kind == "google" else changes))
  tensors = weights.to_timm(tiny.params(arch))
  stacked = () if kind == "google" else (True,)
  np.savez("w.npz", **getattr(namings, kind)(tensors, arch.heads, *stacked))
  network = load("w.npz")
  assert network.preprocessing.mean == (0.5,) * 3
  assert_gives(network, tiny.run_dense(arch, tiny.params(arch), IMAGES).logits)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_scenic_s_checkpoint(page, pool):
  from flax import serialization, traverse_util

  changes = {} if pool == "token" else dict(class_token=False, pool="avg")
  arch = tiny.arch(
    depth=3, classes=3, prune_before=(), image_size=32, activation="gelu_tanh", **changes
  )
  params = tiny.params(arch)
  flat = namings.scenic(weights.to_timm(params), arch.heads)
  state = {"params": traverse_util.unflatten_dict(flat, sep="/"), "global_step": 1000}
  Path("checkpoint_1000").write_bytes(serialization.msgpack_serialize(state))
  (block,) = examples(page["Scenic"])
  follow(block)
  if pool == "token":
    evaluated(page["Scenic"])
  network = load("scenic.npz")
  assert network.arch == vit.Architecture(
    **vars(arch) | {"prune_before": network.arch.prune_before}
  )
  assert_gives(network, tiny.run_dense(arch, params, IMAGES).logits)
