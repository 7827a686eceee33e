"""What a config says of the tensors beside it agrees with them, or is refused with both values."""

import inspect
import json
import re

import namings
import pytest
import tiny

from asvit_jax import weights
from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.weights import claims
from asvit_jax.weights.formats import timm_config

SMALL = dict(width=12, depth=2, prune_before=(), image_size=16, classes=3)
PLAIN = tiny.arch(**SMALL)
CLIP = tiny.arch(**SMALL, norm_pre=True, patch_bias=False, norm_epsilon=1e-5)
SIGLIP = tiny.arch(**SMALL, class_token=False, pool="map", activation="gelu_tanh")
DINOV2 = tiny.arch(**SMALL, layer_scale=True, registers=4)
DINOV3 = tiny.arch(
  **SMALL, registers=4, rope="dinov3", pos_embed=False, layer_scale=True, norm_epsilon=1e-5
)
CLIP8 = tiny.arch(**SMALL | dict(width=8, heads=2), norm_pre=True, patch_bias=False)
MEAN = tiny.arch(**SMALL, pool="avg", norm_after_pool=True)
VIT = {
  "model_type": "vit",
  "num_attention_heads": 3,
  "num_hidden_layers": 2,
  "hidden_size": 12,
  "intermediate_size": 48,
  "image_size": 16,
  "patch_size": 8,
  "num_channels": 3,
  "qkv_bias": True,
  "id2label": {str(i): f"LABEL_{i}" for i in range(3)},
}


def timm_of(name, arguments=(), **fields):
  arguments = {"num_heads": 3, "img_size": 16} | dict(arguments)
  return {"architecture": name, "num_features": 12, "model_args": arguments} | fields


def read(place, arch, content, names=lambda tensors: tensors):
  tensors = weights.to_timm(tiny.params(arch.dense))
  return load(namings.write_repository(place / "w", names(tensors), content))


def refused(place, arch, content, said, names=lambda tensors: tensors):
  with pytest.raises(InputError, match=said) as caught:
    read(place, arch, content, names)
  assert "\n" not in str(caught.value)
  assert "weights " in str(caught.value)


TRANSFORMERS = {
  "patch_size": (16, "patches of 8 pixels"),
  "image_size": (32, "have 5 positions, not 16 for patches"),
  "num_hidden_layers": (3, "2 blocks"),
  "num_channels": (4, "3 channels of images"),
  "hidden_size": (24, "width 12"),
  "intermediate_size": (24, "MLPs of width 48"),
  "num_attention_heads": (5, "12, is no multiple of it"),
  "qkv_bias": (False, "biases of queries and values"),
  "id2label": ({"0": "LABEL_0", "1": "LABEL_1"}, "a head of 3 outputs"),
}


@pytest.mark.parametrize("key", TRANSFORMERS)
def test_a_config_of_transformers_that_contradicts_the_tensors_is_refused(tmp_path, key):
  value, have = TRANSFORMERS[key]
  said = 2 if key == "id2label" else value
  refused(tmp_path, PLAIN, VIT | {key: value}, f"{key}.* is {said}, but .*{have}", ours)


def ours(tensors):
  return namings.transformers(tensors)


def test_a_config_of_transformers_that_agrees_is_read(tmp_path):
  assert read(tmp_path, PLAIN, VIT, ours).arch.dense == PLAIN.dense.__class__(
    **vars(PLAIN.dense) | {"norm_epsilon": 1e-12}
  )


@pytest.mark.parametrize(
  ("arch", "kind"),
  [
    (PLAIN, "clip"),
    (PLAIN, "siglip"),
    (PLAIN, "dinov2"),
    (PLAIN, "dinov3_vit"),
    (CLIP, "vit"),
    (SIGLIP, "vit"),
    (SIGLIP, "clip_vision_model"),
    (DINOV2, "dinov2"),
    (DINOV3, "deit"),
  ],
)
def test_another_kind_of_network_than_the_config_s_is_refused(tmp_path, arch, kind):
  refused(tmp_path, arch, VIT | {"model_type": kind}, f"model_type .* is '{kind}', but .* have ")


REFUSED = {
  "another depth": (PLAIN, "vit_x", {"depth": 3}, "depth .* is 3, but .* 2 blocks"),
  "another width": (PLAIN, "vit_x", {"embed_dim": 24}, "embed_dim .* is 24, but .* width 12"),
  "another patch": (PLAIN, "vit_x", {"patch_size": 4}, "patch_size .* is 4, .* of 8 pixels"),
  "another size": (PLAIN, "vit_x", {"img_size": 24}, "img_size .* is 24, but .* 5 positions"),
  "other channels": (PLAIN, "vit_x", {"in_chans": 1}, "in_chans .* is 1, but .* 3 channels"),
  "other classes": (PLAIN, "vit_x", {"num_classes": 5}, "num_classes .* is 5, .* 3 outputs"),
  "other heads": (PLAIN, "vit_x", {"num_heads": 7}, "num_heads .* is 7, but .* no multiple"),
  "no biases": (PLAIN, "vit_x", {"qkv_bias": False}, "qkv_bias .* is False, but .* biases"),
  "layer scale": (PLAIN, "vit_x", {"init_values": 0.1}, "init_values .* is 0.1, .* no layer sc"),
  "registers": (PLAIN, "vit_s_patch14_reg4_dinov2", {}, "reg4.* but its tensors have 0 registers"),
  "clip without its norm": (PLAIN, "vit_base_patch16_clip_224", {}, "have no norm before the blo"),
  "clip's norm": (
    CLIP,
    "vit_tiny_patch16_224",
    {},
    "architecture .* have a norm before",
  ),
  "siglip": (PLAIN, "vit_base_patch16_siglip_224", {}, "architecture .* have a class token"),
  "dinov3": (PLAIN, "vit_small_patch16_dinov3", {}, "architecture .* have no registers for the ro"),
  "eva02": (PLAIN, "eva02_tiny_patch14_224", {}, "architecture .* not the form of a network with"),
  "fc_norm": (MEAN, "vit_x", {"global_pool": "token"}, "global_pool .* is 'token', but .* fc_norm"),
  "no pooling": (PLAIN, "vit_x", {"global_pool": "map"}, "global_pool .* no attention pooling"),
  "mixed": (DINOV3, "vit_x_dinov3", {"rope_type": "mixed"}, "rope_type .* is 'mixed', .*expected"),
  "cat": (DINOV3, "vit_x_dinov3", {"rope_type": "cat"}, "rope_type .* 'cat', .* with 'dinov3'"),
  "half": (DINOV3, "vit_x_dinov3", {"rope_rotate_half": False}, "rotate_half .* False, .* with Tr"),
  "xy": (DINOV3, "vit_x_dinov3", {"rope_grid_indexing": "xy"}, "indexing .* 'xy', .* with 'ij'"),
  "offset": (DINOV3, "vit_x_dinov3", {"rope_grid_offset": 0.5}, "offset .* is 0.5, .* with 0"),
  "no rotation": (DINOV3, "vit_x_dinov3", {"use_rot_pos_emb": False}, "have rotary positions"),
  "norms": (PLAIN, "vit_x", {"norm_layer": "rmsnorm"}, "norm_layer .* 'rmsnorm', .*expected none"),
  "post-norm": (
    PLAIN,
    "vit_x",
    {"use_post_norm": True},
    "post_norm .* True, .*expected False",
  ),
  "unknown": (PLAIN, "vit_x", {"warp": 2}, "warp .* is 2, .* not known here: take it out if"),
  "groups": (PLAIN, "vit_x", {"num_kv_heads": 1}, "num_kv_heads .* the same number as num_heads"),
  "PE": (CLIP, "vit_pe_core_base_patch16_224", {}, "looks like a Perception Encoder"),
  "RoPE-ViT": (PLAIN, "vit_base_patch16_rope_ape_224", {}, "looks like RoPE-ViT"),
  "post": (PLAIN, "vit_base_patch16_rpn_224", {}, "norms are at other places"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_config_of_timm_that_contradicts_the_tensors_is_refused(tmp_path, kind):
  arch, name, arguments, said = REFUSED[kind]
  refused(tmp_path, arch, timm_of(name, arguments), said)


@pytest.mark.parametrize(
  ("arch", "name", "arguments"),
  [
    (PLAIN, "vit_tiny_patch16_224", {"drop_path_rate": 0.1, "depth": 2, "warp": False}),
    (PLAIN, "vit_tiny_patch16_224", {"num_kv_heads": 3, "attn_layer": "attn", "in_chans": 3.0}),
    (CLIP, "vit_base_patch16_clip_224", {"pre_norm": True}),
    (CLIP, "vit_tiny_patch16_224", {"pre_norm": True, "num_classes": 3}),
    (SIGLIP, "vit_so400m_patch16_siglip_256", {"global_pool": "map"}),
    (DINOV2, "vit_small_patch14_reg4_dinov2", {"init_values": 1e-5, "num_classes": 0}),
    (DINOV3, "vit_small_patch16_dinov3", {"rope_type": "dinov3", "rope_rotate_half": True}),
    (MEAN, "vit_base_patch16_224", {"global_pool": "avg", "fc_norm": True}),
  ],
)
def test_a_config_of_timm_that_agrees_is_read(tmp_path, arch, name, arguments):
  found = read(tmp_path, arch, timm_of(name, arguments)).arch
  assert (found.dense, found.rope) == (arch.dense, arch.rope)


@pytest.mark.parametrize("name", ["open_clip_config.json", "config.json"])
def test_configs_without_weights_are_told_from_a_run(tmp_path, name):
  content = {"model_type": "vit", "model_cfg": {"vision_cfg": {}}}
  (tmp_path / name).write_text(json.dumps(content))
  with pytest.raises(InputError, match=f"has {name}, but no weights: .* open_clip_pytorch_model.b"):
    load(tmp_path)


@pytest.mark.parametrize("content", [[], "text", 3])
def test_a_config_that_is_no_object_is_refused(tmp_path, content):
  with pytest.raises(InputError, match=r"config\.json: it is .*, expected an object"):
    read(tmp_path, PLAIN, content)


def test_a_config_without_heads_says_which_key_is_missing(tmp_path):
  content = {k: v for k, v in VIT.items() if k != "num_attention_heads"}
  refused(tmp_path, PLAIN, content, "number of heads .num_attention_heads, or num_heads in", ours)
  tower = {"model_type": "clip", "vision_config": {"num_hidden_layers": 2}}
  said = "num_attention_heads of vision_config .* missing, .* 12, but the width .* 12, is no mult"
  refused(tmp_path, CLIP8, tower, said.replace("12, is", "8, is"))


@pytest.mark.parametrize("stated", [False, True])
def test_a_base_that_no_config_states_is_assumed_aloud(tmp_path, capsys, stated):
  arguments = {"rope_temperature": 100} if stated else {}
  network = read(tmp_path, DINOV3, timm_of("vit_small_patch16_dinov3", arguments))
  assert network.arch.rope_base == 100
  assert ("is assumed: rope_base 100" in capsys.readouterr().err) != stated


TOWER = {"width": 12, "head_width": 4, "layers": 2, "image_size": 16, "patch_size": 8}
OPENCLIP = tiny.arch(
  **SMALL | {"classes": 6}, norm_pre=True, patch_bias=False, norm_epsilon=1e-5, head="projection"
)


def read_openclip(place, vision, **model):
  model = {"embed_dim": 6, "vision_cfg": TOWER | vision} | model
  tensors = namings.openclip(weights.to_timm(tiny.params(OPENCLIP.dense)))
  namings.write_repository(place / "w", tensors, {})
  (place / "w" / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
  return load(place / "w").arch


@pytest.mark.parametrize(
  ("vision", "model", "changes"),
  [
    ({}, {}, {}),
    ({"norm_kwargs": {"eps": 1e-2}}, {}, {"norm_epsilon": 1e-2}),
    ({"act_kwargs": {"approximate": "tanh"}}, {}, {"activation": "gelu_tanh"}),
    ({"act_kwargs": {}, "norm_kwargs": None}, {"quick_gelu": True}, {"activation": "quick_gelu"}),
    ({"final_ln_after_pool": True, "no_ln_pre": False, "mlp_ratio": 4.0, "layers": 2.0}, {}, {}),
    ({"attentional_pool": False, "scale_heads": False, "pos_embed_type": "learnable"}, {}, {}),
    ({"attn_pooler_queries": 256, "patch_dropout": 0.5, "output_tokens": True}, {}, {}),
  ],
)
def test_a_config_of_openclip_is_read(tmp_path, vision, model, changes):
  found = read_openclip(tmp_path, vision, **model)
  assert found.dense == tiny.vit.Architecture(**vars(OPENCLIP.dense) | changes)


@pytest.mark.parametrize(
  ("vision", "model", "said"),
  [
    ({"act_kwargs": {"approximate": "tanh"}}, {"quick_gelu": True}, "act_kwargs .* no approximat"),
    ({"act_kwargs": {"inplace": True}}, {}, "act_kwargs .*expected approximate"),
    ({"norm_kwargs": {"bias": False}}, {}, "norm_kwargs .*expected eps"),
    ({"attentional_pool": True}, {}, "attentional_pool .* is True, which is not supported"),
    ({"attentional_pool": "parallel"}, {}, "attentional_pool .* is 'parallel'"),
    ({"global_average_pool": True}, {}, "global_average_pool .* is True"),
    ({"input_patchnorm": True}, {}, "input_patchnorm .* is True"),
    ({"pool_type": "avg"}, {}, "pool_type .* is 'avg', .*expected tok"),
    ({"qk_norm": True}, {}, "qk_norm .* is True"),
    ({"no_ln_pre": True}, {}, "no_ln_pre .* is True, but .* have a norm before"),
    ({"ls_init_value": 0.1}, {}, "ls_init_value .* is 0.1, but .* no layer scales"),
    ({"width": 24}, {}, "width .* is 24, but .* width 12"),
    ({"layers": 3}, {}, "layers .* is 3, but .* 2 blocks"),
    ({"patch_size": 16}, {}, "patch_size .* is 16, but .* 8 pixels"),
    ({"image_size": 32}, {}, "image_size .* is 32, but .* 5 positions"),
    ({"mlp_ratio": 2.0}, {}, "mlp_ratio .* is 2.0, but .* width 48"),
    (
      {"head_width": 5},
      {},
      "head_width of vision_cfg of its open_clip.* is 5, but width",
    ),
    ({}, {"embed_dim": 512}, "embed_dim .* is 512, but .* a head of 6"),
    ({"timm_model_name": "vit_tiny_patch16_224"}, {}, "timm_model_name .* a norm before the blo"),
    ({"timm_model_name": "vit_b_clip_x", "timm_proj": "mlp"}, {}, "timm_proj 'mlp'"),
    ({"timm_model_name": "vit_b_clip_x", "timm_pool": "abs_attn"}, {}, "timm_pool 'abs_attn'"),
    ({"timm_model_name": "vit_pe_core_base"}, {}, "Perception Encoder"),
  ],
)
def test_a_config_of_openclip_that_contradicts_or_is_not_supported(tmp_path, vision, model, said):
  with pytest.raises(InputError, match=said) as caught:
    read_openclip(tmp_path, vision, **model)
  assert "\n" not in str(caught.value)


def test_siglip_for_classification_has_a_classifier(tmp_path):
  said = VIT | {"model_type": "siglip", "architectures": ["SiglipForImageClassification"]}
  refused(tmp_path, SIGLIP, said, "architectures .* but its tensors have no classifier", headless)


def test_siglip_s_head_is_not_claimed_of_a_classifier(tmp_path):
  """Whose own forward leaves it out: `vision_use_head` is true by default."""
  mean = tiny.arch(**SMALL, class_token=False, pool="avg", activation="gelu_tanh")
  said = {"model_type": "siglip", "vision_config": {"vision_use_head": True, "patch_size": 8}}
  said["vision_config"]["num_attention_heads"] = 3
  assert read(tmp_path, mean, said).arch.pool == "avg"
  refused(tmp_path, mean, said, "vision_use_head .* is True, but .* no attention pooling", headless)


def headless(tensors):
  return {name: value for name, value in tensors.items() if not name.startswith("head.")}


def test_every_fact_that_is_claimed_is_one_that_tensors_show():
  tensors = weights.to_timm(tiny.params(DINOV3.dense))
  have = claims.shown_by(tensors, {"rope": "dinov3", "head": "classifier"})
  names = {*timm_config._COUNTS.values(), *timm_config._FLAGS.values(), *timm_config._OTHERS}
  assert names <= have.keys()


@pytest.mark.external
@pytest.mark.parametrize("kind", ["vision_transformer.VisionTransformer", "eva.Eva"])
def test_every_argument_of_timm_s_constructors_is_known(timm, kind):
  module, _, name = kind.partition(".")
  theirs = inspect.signature(getattr(getattr(timm.models, module), name)).parameters
  known = {*timm_config._ONLY, *timm_config._HEADS, *timm_config._FREE, *timm_config.ARGUMENTS}
  assert set(theirs) <= known
  defaults = {k: p.default for k, p in theirs.items() if json_like(p.default)}
  timm_config.check_arguments(defaults, "w")  # what the constructor has anyway is supported
  assert len(defaults) > 20


def json_like(value):
  return value is not inspect.Parameter.empty and isinstance(value, (bool, int, float, str))


@pytest.mark.external
@pytest.mark.parametrize(
  "name",
  [
    *("vit_tiny_patch16_224", "vit_base_patch16_clip_224", "vit_base_patch16_clip_quickgelu_224"),
    *(
      "vit_base_patch16_siglip_224",
      "vit_base_patch32_siglip_256",
      "vit_base_patch16_siglip_gap_224",
    ),
    *("vit_small_patch14_reg4_dinov2", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"),
    *("eva02_tiny_patch14_224", "vit_betwixt_patch16_rope_reg4_gap_256", "deit3_small_patch16_224"),
    *("vit_base_patch16_gap_224", "vit_so400m_patch16_siglip_512", "vit_large_patch16_siglip_512"),
  ],
)
def test_what_the_name_of_an_architecture_says_is_so_in_timm(timm, name):
  import torch

  from asvit_jax.weights.families import timm as names

  with torch.device("meta"):
    model = timm.create_model(name, depth=1)
  shapes = {k: torch.empty(v.shape).numpy() for k, v in model.state_dict().items()}
  found = timm_config.claims({"architecture": name}, {}, "")
  tensors, _ = names.FAMILY.translate(shapes, "")
  from asvit_jax.weights.families import _shown

  claims.check(found, tensors, _shown(tensors) | names.FAMILY.seen(shapes, ""), "w")
  assert {c.fact for c in found} >= {"norm_pre"}
  activation = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
  act = type(model.blocks[0].mlp.act).__name__
  facts = timm_config.facts_of(name)
  assert act not in activation or facts["activation"] == activation[act]
  heads = model.blocks[0].attn.num_heads
  assert facts.get("heads", heads) == heads
  timm_config.check_architecture(name, "w")
  assert not re.match("vit_pe_", name)
