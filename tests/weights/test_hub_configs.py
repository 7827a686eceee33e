"""What configs of the hub say is understood as it is, or refused by its name."""

import json
import math

import namings
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_weights import bounded

from asvit_jax import weights
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from asvit_jax.network import Network, load

ARCH = tiny.arch(width=12, depth=1, prune_before=(), image_size=16, classes=3)
TENSORS = weights.to_timm(tiny.params(ARCH))
CLASSES = ("ant", "bee", "cat")
CONFIG = {
  "model_type": "vit",
  "num_attention_heads": 3,
  "layer_norm_eps": 1e-12,
  "image_size": 16,
  "id2label": dict(zip("012", CLASSES, strict=True)),
}
PROCESSOR = {
  "image_processor_type": "ViTImageProcessor",
  "image_mean": [0.5, 0.4, 0.3],
  "image_std": [0.2, 0.3, 0.4],
  "do_resize": True,
  "do_rescale": True,
  "do_normalize": True,
  "rescale_factor": 1 / 255,
  "resample": 2,
  "size": {"height": 16, "width": 16},
}
TIMM = {
  "architecture": "vit_tiny_patch8_16",
  "num_features": 12,
  "global_pool": "token",
  "model_args": {"img_size": 16, "num_heads": 3},
  "pretrained_cfg": {
    "input_size": [3, 16, 16],
    "crop_pct": 0.9,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "label_names": list(CLASSES),
  },
}
NAMED = namings.transformers(TENSORS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A directory of the hub with weights, whose configs are written by the tests."""
  return namings.write_repository(tmp_path_factory.mktemp("hub") / "w", NAMED, CONFIG)


def read(place, config=CONFIG, processor=PROCESSOR):
  for name, content in (("config", config), ("preprocessor_config", processor)):
    (place / f"{name}.json").write_text(json.dumps(content))
  return load(place)


def steps_of_transformers(pixels, processor):
  """What transformers' `rescale` and `normalize` make of pixels of 0 to 255, from its source."""
  x = pixels.astype(np.float64)
  if processor.get("do_rescale", True):
    x = x * processor.get("rescale_factor", 1 / 255)
  if processor.get("do_normalize", True):
    x = (x - np.array(processor["image_mean"])) / np.array(processor["image_std"])
  return x


SCALES = {
  "as usual": {},
  "not normalised": {"do_normalize": False},
  "not rescaled": {"do_rescale": False},
  "neither": {"do_rescale": False, "do_normalize": False},
  "to 2": {"rescale_factor": 1 / 127.5},
  "to 2, not normalised": {"rescale_factor": 1 / 127.5, "do_normalize": False},
  "scale of bytes": {
    "do_rescale": False,
    "image_mean": [123.675, 116.28, 103.53],
    "image_std": [58.395, 57.12, 57.375],
  },
  "a number": {"image_mean": 0.5, "image_std": 0.25},
  "null": {"do_rescale": None, "do_normalize": None, "rescale_factor": None},
}


@pytest.mark.parametrize("kind", SCALES)
def test_the_scale_of_pixels_is_that_of_transformers(place, kind):
  pixels = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
  network = read(place, processor=PROCESSOR | SCALES[kind])
  said = {k: v for k, v in (PROCESSOR | SCALES[kind]).items() if v is not None}
  expected = steps_of_transformers(pixels, said)
  np.testing.assert_allclose(
    network.preprocessing.normalize(pixels), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
  )


BIT = {"image_processor_type": "BitImageProcessor"}
SHORTER = {"size": {"shortest_edge": 256}}
CUTS = {
  "both sides": ({}, ("squash", 1.0, "bilinear")),
  "a number": ({"size": 16}, ("squash", 1.0, "bilinear")),
  "a number, by the shorter side": (BIT | {"size": 256}, ("center", 1.0, "bilinear")),
  "said so": ({"size": 256, "default_to_square": False}, ("center", 1.0, "bilinear")),
  "equal numbers": ({"size": [224, 224]}, ("squash", 1.0, "bilinear")),
  "shorter side": (SHORTER, ("center", 1.0, "bilinear")),
  "cropped": (
    BIT | SHORTER | {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
    ("center", 0.875, "bilinear"),
  ),
  "as DeiT": (
    {"size": 256, "do_center_crop": True, "crop_size": 224},
    ("squash", 0.875, "bilinear"),
  ),
  "crop not asked for": (
    SHORTER | {"do_center_crop": False, "crop_size": 224},
    ("center", 1.0, "bilinear"),
  ),
  "rectangle": ({"size": {"height": 16, "width": 32}}, ("squash", 1.0, "bilinear")),
  "not resized": ({"do_resize": False}, ("squash", 1.0, "bilinear")),
  "ConvNeXt": (
    {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
    ("center", 0.875, "bilinear"),
  ),
  "large ConvNeXt": (
    {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
    ("squash", 1.0, "bilinear"),
  ),
  "number of a filter": ({"resample": 3}, ("squash", 1.0, "bicubic")),
  "name of a filter": ({"resample": "LANCZOS"}, ("squash", 1.0, "lanczos")),
  "long name": ({"resample": "PILImageResampling.BICUBIC"}, ("squash", 1.0, "bicubic")),
  "grey": ({"do_convert_rgb": False}, ("squash", 1.0, "bilinear")),
  "off": ({"do_pad": False, "do_flip_channel_order": None}, ("squash", 1.0, "bilinear")),
}


@pytest.mark.parametrize("kind", CUTS)
def test_sizes_crops_and_filters_are_understood(place, kind):
  changes, (mode, ratio, interpolation) = CUTS[kind]
  found = read(place, processor=PROCESSOR | changes).preprocessing
  assert (found.crop_mode, found.interpolation) == (mode, interpolation)
  assert found.crop_ratio == pytest.approx(ratio)


STEPS_REFUSED = {
  "image_mean": {"image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
  "rescale_factor": {"rescale_factor": 1 / 127.5, "image_mean": None},
  "do_rescale": {"do_rescale": False, "image_std": None},
  "rescale_offset": {"rescale_offset": True},
  "do_pad": {"do_pad": True},
  "do_flip_channel_order": {"do_flip_channel_order": True},
  "do_something_new": {"do_something_new": True},
  "size": {"size": {"longest_edge": 224}},
  "size ": {"size": {"shortest_edge": 224, "longest_edge": 500}},
  "size  ": {"size": {"height": 224}},
  "size   ": {"size": [224, 448]},
  "size    ": {"size": "224"},
  "size     ": {"size": 0},
  "crop_size": {"size": 256, "do_center_crop": True, "crop_size": 300},
  "crop_size ": {"size": 256, "do_center_crop": True, "crop_size": {"height": 224, "width": 112}},
  "do_center_crop": {"do_center_crop": True},
  "do_resize": {"do_resize": False, "do_center_crop": True, "crop_size": 16},
  "crop_pct": {"crop_pct": 0.9},
  "resample": {"resample": 6},
  "resample ": {"resample": "cubic"},
  "image_mean ": {"image_mean": [0.5, 0.5]},
  "image_mean  ": {"image_mean": "0.5"},
  "image_mean   ": {"image_mean": [0.5, float("nan"), 0.5]},
  "image_std": {"image_std": [0.5, 0.0, 0.5]},
  "rescale_factor ": {"rescale_factor": 0},
  "do_normalize": {"do_normalize": "no"},
}


@pytest.mark.parametrize("kind", STEPS_REFUSED)
def test_steps_that_there_are_not_here_are_refused_by_name(place, kind):
  with pytest.raises(InputError) as caught:
    read(place, processor=PROCESSOR | STEPS_REFUSED[kind])
  said = str(caught.value)
  assert kind.strip().removeprefix("image_") in said
  assert "\n" not in said


@pytest.mark.parametrize(
  "labels",
  [
    dict(zip("012", CLASSES, strict=True)),
    dict(zip("210", CLASSES[::-1], strict=True)),
    list(CLASSES),
    {name: label for label, name in enumerate(CLASSES)},  # swapped
  ],
  ids=["usual", "another order", "list", "swapped"],
)
def test_names_of_classes_are_taken_by_their_labels(place, labels):
  assert read(place, CONFIG | {"id2label": labels}).classes == CLASSES
  timm = TIMM | {"label_names": labels}
  timm["pretrained_cfg"] = {k: v for k, v in TIMM["pretrained_cfg"].items() if k != "label_names"}
  assert read(namings.write_repository(place, TENSORS, {}), timm).classes == CLASSES
  namings.write_repository(place, NAMED, {})


LABELS_REFUSED = {
  "keys": {"a": "ant", "b": "bee", "c": "cat"},
  "a gap": {"0": "ant", "1": "bee", "3": "cat"},
  "from one": {"1": "ant", "2": "bee", "3": "cat"},
  "twice": {"0": "ant", "00": "bee", "1": "cat"},
  "mixed": {"0": "ant", "1": 1, "2": "cat"},
  "lists": {"0": ["ant"], "1": ["bee"], "2": ["cat"]},
  "text": "ant,bee,cat",
  "digits": {"٠": "ant", "١": "bee", "٢": "cat"},
  "huge": {"9" * 5000: "ant", "0": "bee", "1": "cat"},
  "fewer": {"0": "ant", "1": "bee"},
  "more": ["ant", "bee", "cat", "dog"],
}


@pytest.mark.parametrize("kind", LABELS_REFUSED)
def test_names_that_no_label_leads_to_are_refused(place, kind):
  with pytest.raises(InputError, match=r"id2label") as caught:
    read(place, CONFIG | {"id2label": LABELS_REFUSED[kind]})
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("inverse", "fits"),
  [
    ({"ant": 0, "bee": 1, "cat": 2}, True),
    ({"ant": "0", "cat": "2"}, True),
    ({"LABEL_0": 0, "LABEL_1": 1}, True),  # nobody has set it
    ({"ant": 1, "bee": 0, "cat": 2}, False),
    ({"ant": 0, "bee": 1, "cat": 7}, False),
    ({"ant": "x"}, False),
    (["ant"], False),
  ],
)
def test_both_ways_to_name_classes_agree_or_are_refused(place, inverse, fits):
  config = CONFIG | {"label2id": inverse}
  if fits:
    assert read(place, config).classes == CLASSES
  else:
    with pytest.raises(InputError, match=r"label2id of its config\.json is not valid"):
      read(place, config)


def test_a_quantised_repository_is_refused_by_its_config(place):
  with pytest.raises(InputError, match="is quantised, as quantization_config"):
    read(place, CONFIG | {"quantization_config": {"quant_method": "bitsandbytes"}})


def test_a_mean_of_bytes_is_refused_for_timm_and_by_the_config(place):
  timm = json.loads(json.dumps(TIMM))
  timm["pretrained_cfg"]["mean"] = [123.675, 116.28, 103.53]
  with pytest.raises(InputError, match=r"data\.mean .*divide those of the 0 to 255 scale by 255"):
    read(place, timm, {})


VALUES_REFUSED = (
  *({"mean": value} for value in ((123.675, 116.28, 103.53), ("a", "b", "c"), (math.nan,) * 3)),
  *({"mean": value} for value in (0.5, "abc", None, (0.5, 0.5), (math.inf,) * 3, (True,) * 3)),
  *({"std": value} for value in ((58.4, 57.1, 57.4), (0.5, -0.5, 0.5), (1e-30,) * 3, ([],) * 3)),
  *({"crop_ratio": value} for value in ("1", None, math.nan, (0.5,), True, -1, 0)),
  *({"interpolation": value} for value in (3, None, ["bicubic"], "cubic")),
  *({"crop_mode": value} for value in (3, None, {}, "border\x1b[2J")),
)


@pytest.mark.parametrize("fields", VALUES_REFUSED, ids=str)
def test_preprocessing_of_other_types_and_ranges_is_refused_by_its_name(fields):
  (key,) = fields
  with pytest.raises(InputError, match=rf"data\.{key} .* is not valid: expected ") as caught:
    Preprocessing(**fields)
  assert str(caught.value).isprintable()
  with pytest.raises(InputError, match=f"f: its preprocessing: .*{key}"):
    Preprocessing.from_json(json.loads(json.dumps(fields)), "f")


@pytest.mark.parametrize("fields", [[], "text", 3, None, [["mean", [0.5] * 3]]], ids=str)
def test_preprocessing_that_is_no_object_is_refused(fields):
  with pytest.raises(InputError, match=r"preprocessing: it is .* expected an object"):
    Preprocessing.from_json(fields)


def test_lists_and_arrays_become_what_can_be_hashed_and_written():
  given = Preprocessing(mean=np.array(IMAGENET_MEAN, np.float32), std=list(IMAGENET_STD))
  assert hash(given) == hash(Preprocessing(mean=given.mean))
  again = Preprocessing.from_json(json.loads(json.dumps(given.to_json())))
  assert again == given
  assert again.mean == pytest.approx(IMAGENET_MEAN)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
SCALARS |= st.sampled_from((10**400, -1, 0, 1, 3, 1e308, "0", "ant", "\x1b[2J", "\ud800"))
JSON = st.recursive(
  SCALARS,
  lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
  ),
  max_leaves=8,
)
ARGUMENTS = ("act_layer", "depth", "patch_size", "qkv_bias", "num_kv_heads", "rope_type", "warp")
FIELDS = {
  "config": (
    *(*CONFIG, "hidden_act", "label2id", "quantization_config", "patch_size", "num_channels"),
    *("num_hidden_layers", "hidden_size", "qkv_bias", "architectures", "vision_config"),
  ),
  "processor": (*PROCESSOR, "crop_size", "do_center_crop", "crop_pct", "do_pad", "offset"),
  "timm": (*TIMM, *(f"model_args.{k}" for k in (*TIMM["model_args"], *ARGUMENTS))),
}
FIELDS["timm"] += tuple(f"pretrained_cfg.{key}" for key in TIMM["pretrained_cfg"])
CHANGES = st.sampled_from([(file, key) for file in FIELDS for key in FIELDS[file]])


def fuzz(place, changes):
  files = json.loads(json.dumps({"config": CONFIG, "processor": PROCESSOR, "timm": TIMM}))
  of_timm = changes[0][0][0] == "timm"
  for (file, key), value in changes:
    outer, _, inner = key.rpartition(".")
    inside = files[file].setdefault(outer, {}) if outer else files[file]
    if isinstance(inside, dict):
      inside[inner] = value
  with bounded() as said:
    network = read(place, files["timm" if of_timm else "config"], files["processor"])
  if said:
    assert "\n" not in said[0] or "does not fit this model" in said[0]
  else:
    assert isinstance(network, Network)
    assert hash(network.preprocessing)
    assert np.isfinite(network.preprocessing.normalize(np.ones((1, 1, 1, 3), np.uint8))).all()


QUICK = settings(
  max_examples=25,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(HealthCheck),
)
SEVERAL = st.lists(st.tuples(CHANGES, JSON), min_size=1, max_size=3)


@QUICK
@given(SEVERAL)
def test_any_value_in_any_field_ends_in_a_network_or_a_line(place, changes):
  fuzz(place, changes)


@pytest.mark.slow
@settings(QUICK, max_examples=1000, derandomize=False)
@given(SEVERAL)
def test_many_values_in_any_field_do_so(place, changes):
  fuzz(place, changes)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b"{" * 30,
    b'{"model_type": NaN, "size": NaN}',
    b"9" * 10_000,
    b" " * (9 << 20),
  ],
  ids=["empty", "no UTF-8", "deep", "open", "NaN", "digits", "large"],
)
def test_a_config_that_is_no_json_is_refused_in_a_line(place, name, content):
  read(place)
  (place / name).write_bytes(content)
  with bounded() as said:
    load(place)
  assert len(said) == 1
  assert "\n" not in said[0]


@pytest.mark.parametrize("content", [[], ["image_mean"], "text", 3])
def test_steps_that_are_no_object_are_refused(place, content):
  with pytest.raises(InputError, match=r"preprocessor_config\.json: it is .* expected an object"):
    read(place, processor=content)
