"""Numbers that no network can run with are refused by the name of their tensor, in every format."""

import dataclasses
import json

import ml_dtypes
import namings
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tiny
from command_lines import run
from raw_weights import write_safetensors as write_raw

from asvit_jax import weights
from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.run.state import TrainState
from asvit_jax.weights.saving import save

ARCH = tiny.TRAINED
PARAMS = tiny.params(ARCH)
TENSORS = weights.to_timm(PARAMS)
PLACES = {
  "blocks.1.mlp.fc1.weight": (3, 5),
  "head.bias": (2,),
  "score_predictor.1.keep_threshold": (),
}


def spoilt(name, value):
  tensors = {k: v.copy() for k, v in TENSORS.items()}
  tensors[name][PLACES[name]] = value
  return tensors


def write_safetensors(place, tensors):
  safetensors.numpy.save_file(tensors, place / "w.safetensors")
  return place / "w.safetensors"


def write_half(place, tensors):
  halves = {k: v.astype(np.float16) for k, v in tensors.items()}
  return write_safetensors(place, halves)


def write_npz(place, tensors):
  np.savez(place / "w.npz", **tensors)
  return place / "w.npz"


def write_shards(place, tensors):
  return namings.write_repository(place / "w", tensors, {}, shards=3)


def write_run(place, tensors):
  identity.save(tiny.plan_of("", budget=0.6, ema_decay=0.0), place / "run")
  checkpoints = Checkpoints(place / "run")
  params = weights.from_timm(ARCH, tensors, "test")
  checkpoints.save(TrainState(np.int32(3), params, None, {}, np.int32(0)))
  checkpoints.wait()
  return place / "run"


WRITERS = (write_safetensors, write_half, write_npz, write_shards, write_run)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("name", PLACES)
def test_weights_that_are_not_finite_are_refused(tmp_path, tiny_variant, write, value, name):
  source = write(tmp_path, spoilt(name, value))
  with pytest.raises(InputError) as caught:
    load(source, ARCH)
  said, size = str(caught.value), TENSORS[name].size
  place = list(PLACES[name] or [0] * (write is write_shards))  # there scalars get an axis
  assert f"tensor {name} is not finite: {value} at {place}" in said
  assert f"1 of its {size:,} numbers" in said
  assert "\n" not in said


def test_a_double_that_no_float_holds_is_not_finite(tmp_path):
  tensors = {k: v.astype(np.float64) for k, v in TENSORS.items()}
  tensors["norm.bias"][1] = 1e300
  with pytest.raises(InputError, match=r"tensor norm\.bias is not finite: inf at \[1\]"):
    load(write_npz(tmp_path, tensors), ARCH)


def test_the_name_is_the_file_s_own_and_what_is_left_out_may_be_anything(tmp_path):
  dense = {k: v for k, v in TENSORS.items() if not k.startswith("score")}
  theirs = namings.transformers(dense)
  extra = {"decoder.mask_token": np.full(3, np.nan, np.float32), "decoder.ids": np.arange(3)}
  path = write_safetensors(tmp_path, theirs | extra)
  assert load(path, ARCH).params["norm"]["bias"].shape == (12,)
  name = "vit.encoder.layer.2.attention.attention.key.bias"
  theirs[name] = np.where(np.arange(12) == 7, np.float32(np.nan), theirs[name])
  with pytest.raises(InputError, match=r"layer\.2\.attention\.attention\.key\.bias is not finite"):
    load(write_safetensors(tmp_path, theirs), ARCH)


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_commands_refuse_them_in_a_line_before_any_work(tmp_path, folder, command):
  path = tmp_path / "w.safetensors"
  tiny.network(ARCH).save(path)
  content = bytearray(path.read_bytes())
  content[-4:] = np.float32(np.nan).tobytes()
  path.write_bytes(content)
  more = {
    "evaluate": (f"--config.data.dir={folder}",),
    "predict": (folder / "val" / "ant" / "0.jpg",),
    "export": ("--format", "safetensors", "--out", tmp_path / "out.safetensors"),
  }
  with pytest.raises(InputError, match=r"tensor \S+ is not finite: nan at"):
    run(command, "--weights", path, *more[command])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "bool", "complex64"])
@pytest.mark.parametrize("write", [write_safetensors, write_npz])
def test_whole_numbers_are_refused_as_quantised(tmp_path, kind, write):
  tensors = TENSORS | {"blocks.0.mlp.fc1.weight": TENSORS["blocks.0.mlp.fc1.weight"].astype(kind)}
  if write is write_npz and kind == "complex64":
    expected = "is of type complex64"
  else:
    expected = rf"tensor blocks\.0\.mlp\.fc1\.weight is of type {kind}, expected floating point"
  with pytest.raises(InputError, match=expected):
    load(write(tmp_path, tensors), ARCH)


def test_counters_of_batch_norms_are_still_ignored(tmp_path):
  arch = tiny.arch(depth=2, prune_before=(1,), **tiny.LV)
  tensors = weights.to_timm(tiny.params(arch))
  tensors |= {f"patch_embed.bn{i}.num_batches_tracked": np.array(7) for i in (1, 2, 3)}
  assert load(write_safetensors(tmp_path, tensors), arch).prunes


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_numbers_of_eight_bits_are_widened_exactly_and_with_scales_refused(tmp_path, kind):
  kind = getattr(ml_dtypes, kind)
  short = {k: v.astype(kind) if v.ndim == 2 else v for k, v in TENSORS.items()}
  loaded = weights.to_timm(load(write_safetensors(tmp_path, short), ARCH).params)
  for name, value in short.items():
    np.testing.assert_array_equal(loaded[name], value.astype(np.float32))
    assert loaded[name].dtype == np.float32
  scale = {"blocks.0.attn.qkv.weight_scale": np.ones((), np.float32)}
  with pytest.raises(InputError, match=r"is quantised: \S+ is of type F8_\w+ and has a scale"):
    load(write_safetensors(tmp_path, short | scale), ARCH)


@pytest.mark.parametrize("kind", ["F4", "F8_E8M0", "F6_E2M3"])
def test_types_of_fewer_bits_are_refused_by_name(tmp_path, kind):
  listed = {"head.bias": (kind, (4,))}
  write_raw(tmp_path / "w.safetensors", listed)
  with pytest.raises(InputError, match=rf"tensor head\.bias is of type {kind}: quantised"):
    load(tmp_path / "w.safetensors", ARCH)


THRESHOLDS = {
  "one": [0.1],
  "two": [0.1, 0.2],
  "four": [0.1, 0.2, 0.3, 0.4],
  "a number": 0.1,
  "text": "0.1",
  "of text": ["0.1", "0.2", "0.3"],
  "ragged": [[0.1, 0.2, 0.3], [0.1]],
  "mixed": [0.1, [0.2], 0.3],
  "rows": [[0.1, 0.2, 0.3]],
  "deep": [[[0.1, 0.2, 0.3]]],
  "not finite": [0.1, float("nan"), 0.3],
  "infinite": [0.1, float("inf"), 0.3],
  "huge": [0.1, 10**400, 0.3],
  "object": {"0": 0.1},
  "null": None,
}


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("kind", THRESHOLDS)
def test_thresholds_of_another_form_in_a_header_are_refused(tmp_path, kind, described):
  metadata = {"thresholds": json.dumps(THRESHOLDS[kind])}
  if described:
    metadata["asvit_jax"] = json.dumps(tiny.network(ARCH).describe())
  dense = {k: v for k, v in TENSORS.items() if not k.startswith("score")}
  safetensors.numpy.save_file(dense, tmp_path / "w.safetensors", metadata)
  with pytest.raises(InputError, match=r"thresholds|score_predictor"):
    load(tmp_path / "w.safetensors", None if described else ARCH)


def test_thresholds_in_a_header_and_among_the_tensors_are_refused(tmp_path):
  metadata = {"thresholds": "[0.1, 0.2, 0.3]"}
  safetensors.numpy.save_file(TENSORS, tmp_path / "w.safetensors", metadata)
  with pytest.raises(InputError, match=r"thresholds are also among its tensors"):
    load(tmp_path / "w.safetensors", ARCH)


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("as_metadata", [True, False])
def test_thresholds_that_could_not_be_loaded_are_not_saved(tmp_path, stages, as_metadata):
  path = tmp_path / "w.safetensors"
  params = PARAMS | {"thresholds": np.full(stages, 0.1, np.float32)}
  network = dataclasses.replace(tiny.network(ARCH), params=params)  # `with_params` refuses them
  with pytest.raises(InputError, match=r"score_predictor\.\d\.keep_threshold"):
    network.save(path, as_metadata)
  assert not path.exists()


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
  params = PARAMS | {"thresholds": np.array([0.1, np.nan, 0.3], np.float32)}
  with pytest.raises(InputError, match=r"would be saved as .*keep_threshold is not finite"):
    tiny.network(ARCH).with_params(params).save(tmp_path / "w.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".bin", ".txt", ".PT", ".onnx", ".json"])
def test_a_name_of_another_format_is_refused_before_any_work(tmp_path, suffix):
  path = tmp_path / f"w{suffix}"
  expected = rf"cannot write weights to .*w{suffix}: they are written as safetensors, but {suffix}"
  with pytest.raises(InputError, match=expected):
    tiny.network(ARCH).save(path)
  given = tmp_path / "given.safetensors"
  tiny.network(ARCH).save(given)
  with pytest.raises(InputError, match=expected):  # there is no data to evaluate on
    run("evaluate", "--weights", given, "--save-weights", path, "--config.data.dir=none")
  with pytest.raises(InputError, match=expected):
    run("export", "--weights", given, "--format", "safetensors", "--out", path)
  assert not path.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w", "run_0.65", "w.ckpt.best", "deit.v2"])
def test_other_names_are_taken_as_before(tmp_path, name):
  save(tmp_path / name, PARAMS)
  with safetensors.safe_open(tmp_path / name, "numpy") as file:
    assert set(file.keys()) == set(TENSORS)
