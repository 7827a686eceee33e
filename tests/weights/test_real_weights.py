"""What people have on their disks: weights beside other tensors, odd suffixes and numbers."""

import json

import namings
import numpy as np
import pytest
import safetensors.numpy
import tiny

from asvit_jax import weights
from asvit_jax.core.errors import InputError
from asvit_jax.network import load

ARCH = tiny.arch(width=12, depth=1, prune_before=(), image_size=16, classes=3)
TENSORS = weights.to_timm(tiny.params(ARCH))
CONFIG = {"model_type": "vit", "num_attention_heads": 3, "layer_norm_eps": 1e-6, "image_size": 16}
SIZE = {"height": 16, "width": 16}
PROCESSOR = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": SIZE, "resample": 3}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
BESIDE = {"criterion.weight": np.ones(3, np.float32), "val_acc.tp": np.ones((), np.int64)}


def write(path, tensors):
  safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
  return path


def assert_same(network):
  for name, value in weights.to_timm(network.params).items():
    np.testing.assert_array_equal(value, TENSORS[name], err_msg=name)


@pytest.mark.parametrize("prefix", ["model.", "module.model.", "model._orig_mod."])
def test_losses_and_metrics_beside_a_network_are_left_out_and_said(tmp_path, capsys, prefix):
  wrapper = "module." if prefix.startswith("module.") else ""
  tensors = {prefix + k: v for k, v in TENSORS.items()}
  path = write(tmp_path / "w.safetensors", tensors | {wrapper + k: v for k, v in BESIDE.items()})
  assert_same(load(path, ARCH))
  assert f"skipped tensors that the classifier does not need: {wrapper}criterion.weight" in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize(
  ("name", "outside"),
  [
    ("model.criterion.weight", ()),
    ("criterion.weight", ("head.",)),  # what the head reads may come through it
    ("module.model.criterion.weight", ()),
  ],
)
def test_what_may_be_of_the_network_is_not_left_out(tmp_path, name, outside):
  before = "module.model." if name.startswith("module.") else "model."
  tensors = {k if k.startswith(outside) else before + k: v for k, v in TENSORS.items()}
  path = write(tmp_path / "w.safetensors", tensors | {name: BESIDE["criterion.weight"]})
  with pytest.raises(InputError, match=r"unexpected .*criterion\.weight"):
    load(path, ARCH)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  directory = tmp_path_factory.mktemp("hub") / "w"
  return namings.write_repository(directory, namings.transformers(TENSORS), CONFIG)


def read(place, config, processor):
  for name, content in (("config", config), ("preprocessor_config", processor)):
    (place / f"{name}.json").write_text(json.dumps(content))
  return load(place)


@pytest.mark.parametrize(
  ("config", "processor"),
  [
    ({}, {"size": 16.0}),
    ({}, {"size": {"height": 16.0, "width": 16.0}, "resample": 3.0}),
    ({}, {"size": [16.0, 16.0]}),
    ({"image_size": SIZE}, {}),
    ({"image_size": 16.0, "num_attention_heads": 3.0}, {}),
    ({"hidden_act": "gelu_python"}, {}),
  ],
)
def test_other_forms_of_the_same_config_are_understood(place, config, processor):
  expected = read(place, CONFIG, PROCESSOR)
  found = read(place, CONFIG | config, PROCESSOR | processor)
  assert_same(found)
  assert (found.arch, found.preprocessing) == (expected.arch, expected.preprocessing)


@pytest.mark.parametrize(
  ("config", "processor", "said"),
  [
    ({}, {"size": 16.5}, "size"),
    ({}, {"resample": 2.5}, "resample"),
    ({"hidden_act": "relu"}, {}, "relu"),
    ({"image_size": {"height": 16}}, {}, "image_size"),
  ],
)
def test_forms_that_are_no_such_are_refused(place, config, processor, said):
  with pytest.raises(InputError, match=said):
    read(place, CONFIG | config, PROCESSOR | processor)


def test_names_of_classes_may_be_whole_numbers(place):
  named = {"id2label": {"0": 0, "1": 10, "2": 7}, "label2id": {"0": 0, "10": 1, "7": 2}}
  assert read(place, CONFIG | named, PROCESSOR).classes == ("0", "10", "7")


@pytest.mark.parametrize("name", ["w.bin", "W.PTH", "w.pt"])
def test_safetensors_under_another_name_are_read_as_that(tmp_path, capsys, name):
  assert_same(load(write(tmp_path / name, TENSORS), ARCH))
  assert "read as safetensors" in capsys.readouterr().err


def test_suffixes_count_in_upper_case(tmp_path):
  with (tmp_path / "W.NPZ").open("wb") as file:
    np.savez(file, **TENSORS)
  assert_same(load(tmp_path / "W.NPZ", ARCH))
  (tmp_path / "W.PTH").write_bytes(b"no such checkpoint")
  with pytest.raises(InputError, match=r"PyTorch|only plain tensors are read"):
    load(tmp_path / "W.PTH", ARCH)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.pth", "w.npz", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
  (tmp_path / name).write_text(POINTER)
  source = tmp_path if name == "model.safetensors" else tmp_path / name
  with pytest.raises(InputError, match=r"is a Git LFS pointer.*git lfs pull") as caught:
    load(source, ARCH)
  assert "\n" not in str(caught.value)
