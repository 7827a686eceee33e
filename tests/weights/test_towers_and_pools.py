"""Networks without a class token, with registers, and image towers, held against their libraries.

Dense, masked and packed with every token give what the library gives; pruned, packed equals masked.
`ASVIT_DIFFERENCES=FILE` appends the largest differences to a file: the table of docs/weights.md.
"""

import json
import os

import jax
import namings
import numpy as np
import pytest
import tiny
from torch_models import randomized

from asvit_jax import vit, weights
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import load
from asvit_jax.sparsity.executions import in_place, packed

pytestmark = pytest.mark.external

CLIP = Preprocessing(
  1.0, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "bicubic"
)
SIGLIP = Preprocessing(1.0, (0.5,) * 3, (0.5,) * 3, "bicubic", "squash")
IMAGES = tiny.images(tiny.arch(), 4)
BOUND = 2e-5


def run(network, images=IMAGES):
  """(dense, masked, packed with every token; masked, packed pruned) outputs, in one program."""
  arch, params = network.arch, network.params
  every = params | {"thresholds": np.full(arch.stages, -1e9, np.float32)}
  pruned = tiny.with_thresholds(arch, params, images, (0.7, 0.4))

  @jax.jit
  def both(params):
    model = vit.model(arch, params)
    return in_place.masked(model, images), packed.packed(model, images, step=16, tokens=True)

  return tiny.run_dense(arch.dense, params, images), both(every), both(pruned)


def hold(network, expected, family, of="logits", images=IMAGES):
  """Asserts that all executions give the library's features; notes the largest differences."""
  dense, every, (masked, ours) = run(network, images)
  take = (lambda outputs: outputs.tokens) if of == "tokens" else (lambda outputs: outputs.logits)
  assert np.abs(expected).max() > 0.1
  found = [np.abs(take(outputs) - expected).max() for outputs in (dense, *every)]
  pruned = np.abs(masked.logits - ours.logits).max()
  np.testing.assert_array_equal(masked.keep, ours.keep)
  assert len(np.unique(np.asarray(masked.kept), axis=0)) > 1
  row = [family, *(float(f"{value:.2g}") for value in (*found, pruned))]
  print(*row)
  if path := os.environ.get("ASVIT_DIFFERENCES"):
    with open(path, "a") as file:
      file.write(json.dumps(row) + "\n")
  assert max(*found, pruned) <= BOUND


def outputs_of(model, *path):
  import torch

  with torch.no_grad():
    found = model(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()))
  for name in path:
    found = getattr(found, name)
  return np.asarray(found)


DIMENSIONS = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=5)
TIMM = {
  "avg, as fine-tuned MAE": dict(global_pool="avg"),
  "avg, norm before, no class token": dict(global_pool="avg", class_token=False, fc_norm=False),
  "registers without positions": dict(reg_tokens=4, no_embed_class=True, init_values=1e-5),
  "registers with positions, avg": dict(reg_tokens=2, global_pool="avg"),
  "map, as SigLIP": dict(global_pool="map", class_token=False, num_classes=0),
  "map, with a head": dict(global_pool="map", act_layer="gelu_tanh"),
  "CLIP": dict(pre_norm=True, act_layer="quick_gelu", num_classes=16),
}


@pytest.mark.parametrize("kind", TIMM)
def test_timm(tmp_path, timm, kind):
  import torch

  changes = dict(TIMM[kind])
  if kind == "CLIP":
    changes["norm_layer"] = torch.nn.LayerNorm
  model = randomized(timm.models.vision_transformer.VisionTransformer(**DIMENSIONS | changes))
  torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
  arguments = {"num_heads": 3, "act_layer": changes.get("act_layer", "gelu")}
  pool = changes.get("global_pool", "token")
  config = {"architecture": "vit", "num_features": 24, "global_pool": pool}
  (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": arguments}))
  network = load(tmp_path)
  assert network.arch.pool == pool
  expected = {"CLIP": CLIP, "map, as SigLIP": SIGLIP, "map, with a head": SIGLIP}
  assert network.preprocessing == expected.get(kind, Preprocessing())
  hold(network, outputs_of(model), f"timm {kind}")


SMALL = dict(intermediate_size=96)
TRANSFORMERS = {
  "CLIPVisionModelWithProjection": (SMALL | {"projection_dim": 16}, ("image_embeds",)),
  "CLIPVisionModel": (SMALL, ("pooler_output",)),
  "SiglipVisionModel": (SMALL, ("pooler_output",)),
  "SiglipForImageClassification": ({}, ("logits",)),
  "SiglipForImageClassification without a pooling": ({}, ("logits",)),
  "Dinov2WithRegistersModel": (dict(mlp_ratio=4), ("last_hidden_state",)),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(tmp_path, transformers, capfd, name):
  import torch

  changes, path = TRANSFORMERS[name]
  if name.startswith("SiglipForImageClassification"):
    tower = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, **SMALL)
    tower |= dict(image_size=32, patch_size=8, vision_use_head=name.endswith("cation"))
    config = transformers.SiglipConfig(vision_config=tower, num_labels=5)
    model = randomized(transformers.SiglipForImageClassification(config))
  else:
    model = transformers_vision(transformers, name, **changes)
  if name == "CLIPVisionModelWithProjection":  # a bare file, in the names that memory has
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
  else:
    model.save_pretrained(tmp_path)
  if name == "Dinov2WithRegistersModel":
    network = load(tmp_path, new_head=True, classes=5)
    assert network.arch.registers == 4
    return hold(network, outputs_of(model, *path), f"transformers {name}", "tokens")
  network = load(tmp_path)
  skipped = "skipped tensors that the classifier does not need: vision_model.head.attention"
  assert (skipped in capfd.readouterr().err) == (name == "SiglipForImageClassification")
  assert network.preprocessing == (CLIP if name.startswith("CLIP") else SIGLIP)
  return hold(network, outputs_of(model, *path), f"transformers {name}")


def transformers_vision(transformers, name, **changes):
  kind = {"CLIP": "CLIPVision", "Sigl": "SiglipVision"}.get(name[:4], "Dinov2WithRegisters")
  dimensions = dict(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=3, image_size=32, patch_size=8
  )
  config = getattr(transformers, f"{kind}Config")(**dimensions | changes)
  return randomized(getattr(transformers, name)(config))


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_a_model_of_both_towers_is_read_as_its_image_tower(tmp_path, transformers, kind):
  import torch

  tower = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, **SMALL)
  text = tower | dict(vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
  config = getattr(transformers, f"{kind}Config")(
    vision_config=tower | dict(image_size=32, patch_size=8),
    text_config=text,
    **({"projection_dim": 16} if kind == "CLIP" else {}),
  )
  model = randomized(getattr(transformers, f"{kind}Model")(config))
  model.save_pretrained(tmp_path)
  with torch.no_grad():
    expected = model.get_image_features(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()))
  expected = np.asarray(getattr(expected, "pooler_output", expected))
  hold(load(tmp_path), expected, f"transformers {kind}Model.get_image_features")


def test_openclip_s_names_are_those_that_timm_reads(tmp_path, timm):
  import torch

  arch = tiny.arch(depth=3, prune_before=(), norm_pre=True, patch_bias=False, norm_epsilon=1e-5)
  arch = vit.Architecture(**vars(arch) | dict(head="projection", classes=16))
  tensors = namings.openclip(weights.to_timm(tiny.params(arch)))
  torch.save({k: torch.tensor(v) for k, v in tensors.items()}, tmp_path / "pytorch_model.bin")
  vision = dict(width=24, head_width=8, layers=3, image_size=32, patch_size=8)
  config = {"model_cfg": {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision}}
  (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
  model = timm.models.vision_transformer.VisionTransformer(
    **DIMENSIONS
    | dict(pre_norm=True, norm_layer=torch.nn.LayerNorm, act_layer="quick_gelu", num_classes=16)
  )
  theirs = torch.load(tmp_path / "pytorch_model.bin")
  model.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(theirs, model))
  network = load(tmp_path)
  assert network.preprocessing == CLIP
  hold(network, outputs_of(model.eval()), "OpenCLIP's names, as timm reads them")


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("pool", ["map", "avg"])
def test_big_vision_s_npz_is_that_which_timm_reads(tmp_path, timm, pool, stacked):
  changes = dict(head="none", classes=24) if pool == "map" else {}
  arch = tiny.arch(
    depth=3, prune_before=(), class_token=False, pool=pool, activation="gelu_tanh", **changes
  )
  tensors = weights.to_timm(tiny.params(arch))
  np.savez(tmp_path / "w.npz", **namings.big_vision(tensors, arch.heads, stacked))
  model = timm.models.vision_transformer.VisionTransformer(
    **DIMENSIONS
    | dict(class_token=False, global_pool=pool, act_layer="gelu_tanh", fc_norm=False)
    | ({"num_classes": 0} if pool == "map" else {})
  )
  model.load_pretrained(str(tmp_path / "w.npz"))
  network = load(tmp_path / "w.npz")
  assert network.preprocessing.mean == (0.5,) * 3
  expected, family = outputs_of(model.eval()), f"big_vision's .npz, {pool}, as timm reads it"
  if stacked:
    hold(network, expected, family)
  else:
    found = tiny.run_dense(network.arch.dense, network.params, IMAGES).logits
    np.testing.assert_allclose(found, expected, atol=BOUND)
