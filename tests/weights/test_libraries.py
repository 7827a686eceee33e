"""Weights that the original libraries wrote: the same logits as by their own forward."""

import contextlib
import dataclasses
import re

import jax
import numpy as np
import pytest
import tiny
from torch_models import randomized

from asvit_jax.network import load
from asvit_jax.vit import Architecture

with contextlib.suppress(ImportError):
  # Before any test runs: imported after TensorFlow 2.21, torchvision 0.29 ends the process.
  import torchvision

pytestmark = pytest.mark.external

IMAGES = tiny.images(tiny.arch(), 2)
DIMENSIONS = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=5)


def logits_of(model, images=IMAGES):
  import torch

  with torch.no_grad():
    out = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
  return np.asarray(getattr(out, "logits", out))


def assert_same_logits(network, model, images=IMAGES):
  expected = logits_of(model, images)
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(network(images, "dense").logits, expected, atol=2e-5)


TIMM = {
  "vit": ("vision_transformer", "VisionTransformer", {}),
  "rectangle": ("vision_transformer", "VisionTransformer", {"img_size": (16, 48)}),
  "deit3": (
    "vision_transformer",
    "VisionTransformer",
    {"no_embed_class": True, "init_values": 1e-6},
  ),
  "distilled": ("deit", "VisionTransformerDistilled", {}),
}


@pytest.mark.parametrize("kind", TIMM)
def test_timm_s_networks(tmp_path, timm, kind):
  import torch

  module, name, changes = TIMM[kind]
  model = randomized(getattr(getattr(timm.models, module), name)(**DIMENSIONS | changes))
  if kind == "distilled":
    model.distilled_training = False
  size = changes.get("img_size", 32)
  torch.save({"state_dict_ema": model.state_dict(), "epoch": 3}, tmp_path / "w.pth")
  arch = tiny.arch(depth=3, prune_before=(1, 2), image_size=size)
  traits = dict(dist_token=True, dist_head=True) if kind == "distilled" else {}
  arch = dataclasses.replace(arch, layer_scale=kind == "deit3", **traits)
  network = load(tmp_path / "w.pth", arch)
  assert_same_logits(network, model, tiny.images(arch, 2))


def test_a_repository_as_timm_pushes_it(tmp_path, timm):
  from timm.models import _hub

  mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
  cfg = dict(mean=mean, std=std, crop_pct=0.95, interpolation="bilinear")
  model = timm.create_model(
    "deit_tiny_patch16_224", img_size=48, num_classes=7, pretrained_cfg_overlay=cfg
  )
  _hub.save_for_hf(randomized(model), tmp_path)
  network = load(tmp_path)
  assert network.variant == "deit_t"
  assert (network.arch.image_size, network.arch.classes, network.arch.heads) == (48, 7, 3)
  found = network.preprocessing
  assert (found.mean, found.std, found.crop_ratio) == (mean, std, 0.95)
  assert found.interpolation == "bilinear"
  assert_same_logits(network, model, tiny.images(network.arch, 1))


def test_a_network_of_google_s_npz_is_that_which_timm_reads(tmp_path, timm):
  import namings

  from asvit_jax import weights

  arch = tiny.arch(depth=3, prune_before=())
  tensors = weights.to_timm(tiny.params(arch))
  np.savez(tmp_path / "w.npz", **namings.google(tensors, arch.heads))
  model = timm.models.vision_transformer.VisionTransformer(**DIMENSIONS)
  model.load_pretrained(str(tmp_path / "w.npz"))
  assert_same_logits(load(tmp_path / "w.npz"), model.eval())


def transformers_model(transformers, name, **changes):
  kind = re.split("For|Model", name)[0]
  dimensions = dict(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=3, image_size=32, patch_size=8
  )
  if "ForImageClassification" in name:
    dimensions |= dict(intermediate_size=96, num_labels=5)
  config = getattr(transformers, f"{kind}Config")(**dimensions | changes)
  return randomized(getattr(transformers, name)(config))


@pytest.mark.parametrize(
  ("name", "layout"),
  [
    ("ViTForImageClassification", "safetensors"),
    ("ViTForImageClassification", "shards"),
    ("DeiTForImageClassification", "pytorch_model.bin"),
    ("DeiTForImageClassificationWithTeacher", "safetensors"),
    ("DeiTForImageClassificationWithTeacher", "state_dict.pt"),
  ],
)
def test_networks_of_transformers(tmp_path, transformers, name, layout):
  import torch

  model = transformers_model(transformers, name)
  path = tmp_path
  if layout == "safetensors":
    model.save_pretrained(tmp_path)
  elif layout == "shards":
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
  else:
    model.config.save_pretrained(tmp_path)
    path = tmp_path / layout
    torch.save(model.state_dict(), path)  # in the names of version 5
    path = tmp_path if layout == "pytorch_model.bin" else path
  assert_same_logits(load(path), model)


def test_the_processor_of_transformers_says_how_images_are_cut(tmp_path, transformers):
  from PIL import Image

  from asvit_jax.data.images import load_image

  model = transformers_model(transformers, "ViTForImageClassification")
  model.save_pretrained(tmp_path)
  processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
  processor.save_pretrained(tmp_path)
  photograph = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
  Image.fromarray(photograph).save(tmp_path / "a.png")
  network = load(tmp_path)
  ours = load_image(tmp_path / "a.png", 32, network.preprocessing)
  theirs = processor(Image.fromarray(photograph), return_tensors="np")["pixel_values"][0]
  # They may resize with another library: by a few of 255 levels elsewhere.
  difference = np.abs(network.preprocessing.normalize(ours).transpose(2, 0, 1) - theirs)
  assert difference.mean() < 0.02


@pytest.mark.parametrize("name", ["Dinov2Model", "ViTMAEForPreTraining", "ViTModel"])
def test_features_of_networks_without_a_head(tmp_path, transformers, name):
  import torch

  changes = dict(mlp_ratio=2) if name == "Dinov2Model" else dict(intermediate_size=48)
  model = transformers_model(transformers, name, num_hidden_layers=2, **changes)
  model.save_pretrained(tmp_path)
  network = load(tmp_path, new_head=True, classes=4)
  assert network.arch.norm_epsilon == model.config.layer_norm_eps
  images = tiny.images(network.arch, 2)
  pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  inner = getattr(model, "vit", model)
  with torch.no_grad():
    if name.startswith("ViTMAE"):  # all patches, in order
      inner.config.mask_ratio = 0.0
      noise = torch.arange(16.0)[None].repeat(2, 1)
      expected = inner(pixels, noise=noise).last_hidden_state
    else:
      expected = inner(pixels).last_hidden_state
  tokens = jax.jit(lambda n, x: n.apply(x, "dense").tokens)(network, images)
  np.testing.assert_allclose(tokens, expected, atol=2e-5)


def test_torchvision_s_networks(tmp_path):
  import torch

  pytest.importorskip("torchvision")
  model = randomized(torchvision.models.VisionTransformer(32, 8, 3, 3, 24, 96, num_classes=5))
  torch.save(model.state_dict(), tmp_path / "w.pth")
  network = load(tmp_path / "w.pth", tiny.arch(depth=3, prune_before=(1, 2)))
  assert_same_logits(network, model)


REFUSED = {
  "beit_base_patch16_224": "BEiT",
  "swin_tiny_patch4_window7_224": "Swin",
  "resnet18": "a ResNet",
  "convnext_atto": "ConvNeXt",
  "cait_xxs24_224": "CaiT",
  "mixer_s16_224": "MLP-Mixer",
  "eva02_base_patch16_clip_224": "EVA-02's tower",
  "vit_small_patch16_rope_mixed_224": "learned rotary positions",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_networks_of_timm_are_refused_by_name(tmp_path, timm, name):
  import torch

  from asvit_jax.core.errors import InputError

  with torch.device("meta"):
    shapes = timm.create_model(name).state_dict()
  torch.save({k: torch.zeros(v.shape[:1] or ()) for k, v in shapes.items()}, tmp_path / "w.pth")
  with pytest.raises(
    InputError, match=f"looks like .*{REFUSED[name]}.*whose blocks are not supported"
  ):
    load(tmp_path / "w.pth", Architecture(192, 3))


@pytest.mark.parametrize(("size", "no_embed_class"), [((16, 48), False), ((40, 24), True)])
def test_positions_are_interpolated_as_timm_does_it(tmp_path, timm, size, no_embed_class):
  import torch

  model = randomized(
    timm.models.vision_transformer.VisionTransformer(**DIMENSIONS, no_embed_class=no_embed_class)
  )
  torch.save(model.state_dict(), tmp_path / "w.pth")
  arch = tiny.arch(depth=3, prune_before=(1, 2), image_size=size)
  network = load(tmp_path / "w.pth", arch, resize=True)
  model.set_input_size(img_size=size)
  ours = np.asarray(network.params["pos_embed"])[:, int(no_embed_class) :]
  np.testing.assert_allclose(ours, model.pos_embed.detach().numpy(), atol=2e-6)
  assert_same_logits(network, model, tiny.images(arch, 2))


@pytest.fixture(scope="module")
def deit_t(shared):
  path = shared / "data" / "deit_tiny_patch16_224.safetensors"
  if not path.is_file():
    pytest.skip(f"{path} is not there")
  return path


@pytest.mark.parametrize("form", ["transformers", "google"])
def test_the_real_deit_t_says_the_same_in_other_names(tmp_path, deit_t, form):
  import namings
  import safetensors.numpy

  tensors = safetensors.numpy.load_file(deit_t)
  expected = load(deit_t)
  if form == "google":
    np.savez(tmp_path / "w.npz", **namings.google(tensors, 3))
    network = load(tmp_path / "w.npz")
  else:
    config = {"model_type": "vit", "num_attention_heads": 3, "layer_norm_eps": 1e-6}
    network = load(
      namings.write_repository(tmp_path, namings.transformers(tensors), config, shards=4)
    )
  assert (network.arch, network.variant) == (expected.arch, "deit_t")
  jax.tree.map(np.testing.assert_array_equal, network.params, expected.params)
  images = tiny.images(expected.arch, 2)
  np.testing.assert_array_equal(network(images, "dense").logits, expected(images, "dense").logits)
