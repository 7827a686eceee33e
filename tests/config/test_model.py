"""The network that a config describes."""

import dataclasses

import pytest
import tiny

from asvit_jax import vit
from asvit_jax.config import rules
from asvit_jax.config.model import OVERRIDES
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import IMAGENET_STD, Preprocessing

pytestmark = pytest.mark.usefixtures("tiny_variant")

# Another value than the variant's for everything that a config can override.
OTHERS = {
  "width": 24,
  "heads": 4,
  "depth": 5,
  "mlp_ratio": 3.0,
  "stem": "conv",
  "norm_epsilon": 1e-5,
  "qkv_bias": False,
  "residual_divisor": 2.0,
  "layer_scale": True,
  "layer_scale_init": 1e-5,
  "pos_embed": False,
  "rope": "dinov3",
  "rope_base": 50.0,
  "rope_grid": (4, 4),
  "rope_merged": "kept",
  "swiglu": True,
  "mlp_norm": True,
  "qk_norm": True,
  "dist_token": True,
  "dist_head": True,
  "class_token": False,
  "registers": 2,
  "pool": "avg",
  "norm_after_pool": True,
  "norm_pre": True,
  "activation": "quick_gelu",
  "patch_bias": False,
  "head": "projection",
  "text_width": 8,
  "aux_head": True,
  "count_elementwise": True,
  "prune_before": (1, 3),
  "attention": "other",
  "score": "other",
  "reduction": "other",
  "prune_inside": True,
  "count_multiple": 4,
  "score_exponents": (0.5, 1.0),
  "stage_weights": (1.0, 2.0, 0.5),
}

# What a key needs beside it.
NEEDED = {
  "dist_head": {"dist_token": True},
  "class_token": {"pool": "map"},
  "norm_after_pool": {"pool": "avg"},
  "text_width": {"head": "projection"},
  "rope_base": {"rope": "dinov3"},
  "rope_grid": {"rope": "eva02"},
}


@pytest.mark.parametrize("key", OVERRIDES)
def test_a_key_of_the_model_overrides_the_variants_value_and_no_other(key):
  given = NEEDED.get(key, {}) | {key: OTHERS[key]}
  config = tiny.config("", **{f"model.{k}": v for k, v in given.items()})
  expected = dataclasses.replace(tiny.TRAINED, **given)
  assert tiny.architecture(config) == expected != tiny.TRAINED


def test_a_network_of_your_own_is_given_by_its_dimensions():
  own = {"model.variant": "mine", "model.width": 24, "model.heads": 3, "model.depth": 4}
  config = tiny.config("", **own, **{"model.prune_before": (1, 2)})
  arch = tiny.architecture(config)
  assert arch == vit.Architecture(
    24, 3, 4, image_size=16, patch_size=4, classes=3, prune_before=(1, 2)
  )
  with pytest.raises(InputError, match=r"'mine' is not known.*model\.prune_before must be given"):
    tiny.architecture(tiny.config("", **own))


def test_weights_of_stages_go_with_the_stages_that_they_are_for():
  theirs = dataclasses.replace(tiny.TRAINED, stage_weights=(1.0, 2.0, 0.5))
  assert tiny.architecture(tiny.config(""), theirs) == theirs
  ours = tiny.architecture(tiny.config("", **{"model.prune_before": (1, 2)}), theirs)
  assert (ours.prune_before, ours.stage_weights) == ((1, 2), ())


def test_exponents_of_a_score_are_two():
  with pytest.raises(InputError, match=r"score_exponents \(0\.5,\): expected two numbers to four"):
    tiny.architecture(tiny.config("", **{"model.score_exponents": (0.5,)}))


@pytest.mark.parametrize("part", ["attention", "score", "reduction", "stem"])
def test_a_part_that_is_not_known_is_refused_and_the_known_ones_named(part):
  config = tiny.config("", **{f"model.{part}": "nothing"})
  for check in (rules.check, rules.check_evaluation):
    with pytest.raises(InputError, match=rf"^model\.{part} 'nothing' is not known: choose from "):
      check(config)


def test_what_a_config_leaves_open_of_how_to_prune_is_the_weights():
  described = dataclasses.replace(tiny.TRAINED, prune_before=(2,), score="theirs", width=24)
  arch = tiny.architecture(tiny.config(""), described)
  assert (arch.prune_before, arch.score, arch.width) == ((2,), "theirs", 12)  # theirs need not fit
  arch = tiny.architecture(tiny.config("", **{"model.prune_before": (1, 3)}), described)
  assert (arch.prune_before, arch.score) == ((1, 3), "theirs")


def test_what_a_config_leaves_open_of_the_preprocessing_is_the_weights():
  assert tiny.preprocessing(tiny.config("")) == Preprocessing()
  described = Preprocessing(0.9, (0.5, 0.5, 0.5), IMAGENET_STD, "bilinear")
  assert tiny.preprocessing(tiny.config(""), described) == described
  config = tiny.config("", **{"data.crop_ratio": 1.0, "data.mean": (0.4, 0.4, 0.4)})
  expected = Preprocessing(1.0, (0.4, 0.4, 0.4), IMAGENET_STD, "bilinear")
  assert tiny.preprocessing(config, described) == expected


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data.mean": (0.5, 0.5)}, r"data\.mean \(0\.5, 0\.5\) is not valid: expected three numbers"),
    ({"data.std": (0.5, 0.5, 0.0)}, r"data\.std .* three numbers above 0"),
    ({"data.interpolation": "cubic"}, r"data\.interpolation 'cubic' .* nearest, bilinear, bicubic"),
  ],
)
def test_a_preprocessing_that_cannot_work_is_refused(changes, message):
  with pytest.raises(InputError, match=message):
    rules.check(tiny.config("", **changes))
