"""DINOv3, EVA-02 and others with rotary positions or gated MLPs, as their libraries run them."""

import dataclasses
import functools

import numpy as np
import pytest
import safetensors.numpy
import test_towers_and_pools as towers
import tiny
import torch_models
from test_libraries import DIMENSIONS, assert_same_logits

from asvit_jax.core.errors import InputError
from asvit_jax.network import load

pytestmark = pytest.mark.external


@pytest.fixture(scope="module")
def eva():
  return pytest.importorskip("timm.models.eva").Eva


@pytest.fixture(scope="module")
def dinov3():
  return pytest.importorskip("transformers.models.dinov3_vit")


def randomized(model):
  """As `torch_models.randomized`, with layer scales near 1: blocks then matter."""
  import torch

  model = torch_models.randomized(model)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if "gamma" in name or "lambda1" in name:
        parameter.add_(1.0)
  return model


def features_of(model, images):
  """All tokens after the last norm, by the library."""
  import torch

  pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    found = model.forward_features(pixels) if hasattr(model, "forward_features") else model(pixels)
  return np.asarray(getattr(found, "last_hidden_state", found))


def hold(network, model, family):
  """As `test_towers_and_pools.hold`, of all tokens."""
  images = tiny.images(network.arch, 4)
  towers.hold(network, features_of(model, images), family, "tokens", images)


DINO = DIMENSIONS | dict(
  img_size=(16, 48),
  global_pool="token",
  init_values=1e-5,
  rope_type="dinov3",
  rope_temperature=100,
  rope_rotate_half=True,
  use_rot_pos_emb=True,
  use_abs_pos_emb=False,
  num_reg_tokens=2,
  use_fc_norm=False,
)
EVA = DIMENSIONS | dict(
  global_pool="token",
  mlp_ratio=4 * 2 / 3,
  swiglu_mlp=True,
  use_rot_pos_emb=True,
  ref_feat_shape=(6, 6),
)
TIMM = {
  "dinov3": (DINO, {}),
  "dinov3 without biases": (DINO, dict(qkv_bias=False)),
  "dinov3 plus": (DINO, dict(swiglu_mlp=True, swiglu_align_to=8)),
  "dinov3 of another base": (DINO, dict(rope_temperature=20)),
  "dinov3 with qk-norm": (DINO, dict(qk_norm=True)),
  "eva02 small": (EVA, {}),
  "eva02 base": (EVA, dict(qkv_fused=False, scale_mlp=True)),
  "eva02 rectangle": (EVA, dict(img_size=(16, 48))),
  "eva02 of the mean": (EVA, dict(global_pool="avg")),
  "rope_reg1_gap": (
    EVA,
    dict(
      global_pool="avg",
      swiglu_mlp=False,
      class_token=False,
      num_reg_tokens=1,
      init_values=1e-5,
      use_abs_pos_emb=False,
    ),
  ),
}


@pytest.mark.parametrize("kind", TIMM)
def test_timm_s_networks(tmp_path, eva, kind):
  from timm.layers import LayerNorm

  base, changes = TIMM[kind]
  given = base | changes
  epsilon = 1e-5 if base is DINO else 1e-6
  model = randomized(eva(**given, norm_layer=functools.partial(LayerNorm, eps=epsilon)))
  tensors = {name: value.detach().numpy() for name, value in model.state_dict().items()}
  safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
  arch = tiny.arch(depth=3, prune_before=(1, 2), image_size=given["img_size"])
  arch = dataclasses.replace(
    arch,
    mlp_ratio=64 / 24 if base is EVA else 4,
    norm_epsilon=epsilon,
    rope="dinov3" if base is DINO else "eva02",
    rope_base=given.get("rope_temperature", 10000),
    rope_grid=given.get("ref_feat_shape", ()),
    pos_embed=given.get("use_abs_pos_emb", True),
    swiglu=given.get("swiglu_mlp", False),
    mlp_norm="scale_mlp" in given,
    qk_norm="qk_norm" in given,
    qkv_bias="qkv_bias" not in given,
    layer_scale="init_values" in given,
    registers=given.get("num_reg_tokens", 0),
    class_token=given.get("class_token", True),
    pool=given["global_pool"],
    norm_after_pool=given["global_pool"] == "avg",
  )
  network = load(tmp_path / "w.safetensors", arch)
  hold(network, model, f"timm {kind}")
  assert_same_logits(network, model, tiny.images(arch, 3))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("image_size", [32, (24, 40)])
def test_dinov3_of_transformers(tmp_path, dinov3, gated, image_size):
  config = dinov3.DINOv3ViTConfig(
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=3,
    image_size=image_size,
    patch_size=8,
    num_register_tokens=2,
    use_gated_mlp=gated,
    hidden_act="silu" if gated else "gelu",
    rope_theta=50.0,
  )
  model = randomized(dinov3.DINOv3ViTModel(config))
  model.save_pretrained(tmp_path)
  network = load(tmp_path, new_head=True, classes=4)
  arch = network.arch
  assert (arch.rope, arch.rope_base, arch.swiglu, arch.pos_embed) == ("dinov3", 50, gated, False)
  hold(network, model, f"transformers DINOv3, gated {gated}")
  with pytest.raises(
    InputError, match=r"its rope_base is 50\.0, not 100\.0; leave model\.rope_base"
  ):
    load(tmp_path, dataclasses.replace(arch, rope_base=100.0))
  with pytest.raises(InputError, match="its rope is 'dinov3', not ''"):
    load(tmp_path, dataclasses.replace(arch, rope="", rope_base=0, pos_embed=True))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_dinov3_qkvb", "eva02_tiny_patch14_224"])
def test_a_repository_as_timm_pushes_it_needs_no_architecture(tmp_path, timm, name):
  from timm.models import _hub

  patch = 14 if "14" in name else 16
  changes = dict(img_size=3 * patch, depth=3, num_classes=7, global_pool="token")
  model = randomized(timm.create_model(name, **changes))
  _hub.save_for_hf(model, tmp_path, model_args=dict(img_size=3 * patch))
  network = load(tmp_path)
  assert (network.arch.heads, network.arch.classes) == (3, 7)
  hold(network, model, name)
  assert network.preprocessing.crop_ratio == model.pretrained_cfg["crop_pct"]


def test_dinov2_g_of_transformers_has_gated_mlps(tmp_path, transformers):
  config = transformers.Dinov2Config(
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    image_size=32,
    patch_size=8,
    use_swiglu_ffn=True,
  )
  model = randomized(transformers.Dinov2Model(config))
  model.save_pretrained(tmp_path)
  network = load(tmp_path, new_head=True, classes=4)
  assert network.arch.swiglu
  hold(network, model, "transformers DINOv2 with SwiGLU")
