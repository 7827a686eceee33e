import argparse
import dataclasses
import json
import pathlib
import sys
import types

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tiny
from test_weights import assert_identical

from asvit_jax import vit, weights
from asvit_jax.core import storage
from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.weights import formats
from asvit_jax.weights.saving import save

DEIT, LVVIT = tiny.arch(depth=5), tiny.arch(depth=5, **tiny.LV)
FAMILIES = pytest.mark.parametrize("arch", [DEIT, LVVIT], ids=["deit", "lvvit"])


@pytest.fixture
def torch():
  return pytest.importorskip("torch")


def state_dict(torch, params, prefix="", counters=True):
  """What PyTorch holds of such a network, the counters of batch norms included."""
  tensors = {k: torch.tensor(v) for k, v in weights.to_timm(params).items()}
  norms = {k.rpartition(".")[0] for k in tensors if k.endswith(".running_mean") and counters}
  tensors |= {f"{norm}.num_batches_tracked": torch.tensor(7) for norm in norms}
  return {prefix + name: tensor for name, tensor in tensors.items()}


LAYOUTS = {
  "plain.pth": lambda sd: sd("", False),
  "counters.pt": lambda sd: sd(""),
  "model.bin": lambda sd: {"model": sd("")},
  "state_dict.pth.tar": lambda sd: {"state_dict": sd(""), "epoch": 3, "arch": "lvvit"},
  "parallel.pth": lambda sd: {"state_dict": sd("module."), "metric": 83.3},
  "arguments.pth": lambda sd: {
    "model": sd("module."),
    "args": argparse.Namespace(lr=5e-4, opt="adamw", resume=None, betas=[0.9, 0.99]),
    "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
  },
}


@FAMILIES
@pytest.mark.parametrize("thresholds", [True, False], ids=["pruned", "dense"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pytorch_checkpoint_is_imported_to_the_bit(tmp_path, torch, arch, layout, thresholds):
  params = tiny.params(arch if thresholds else arch.dense)
  content = LAYOUTS[layout](lambda *options: state_dict(torch, params, *options))
  torch.save(content, tmp_path / layout)
  assert_identical(load(tmp_path / layout, arch).params, params)


def test_the_format_of_old_pytorch_and_half_precision_are_read(tmp_path, torch):
  path = tmp_path / "old.pth"
  halves = {k: v.half() for k, v in state_dict(torch, tiny.params(DEIT)).items()}
  torch.save(halves, path, _use_new_zipfile_serialization=False)
  loaded = weights.to_timm(load(path, DEIT).params)
  for name, value in halves.items():
    np.testing.assert_array_equal(loaded[name], value.float().numpy())


def test_a_checkpoint_in_a_bucket_is_copied_once(tmp_path, torch, monkeypatch):
  torch.save(state_dict(torch, tiny.params(DEIT)), tmp_path / "w.pth")
  copied, local = [], storage.local
  monkeypatch.setattr(storage, "local", lambda name: copied.append(name) or local(name))
  formats.read(tmp_path / "w.pth")
  assert copied == [str(tmp_path / "w.pth")]


@FAMILIES
@pytest.mark.parametrize("thresholds", ["tensors", "metadata", "none"])
def test_import_export_import_is_the_identity_to_the_bit(tmp_path, torch, arch, thresholds):
  given = tiny.params(arch.dense if thresholds == "none" else arch)
  torch.save({"model": state_dict(torch, given)}, tmp_path / "first.pth")
  imported = load(tmp_path / "first.pth", arch).params
  metadata = thresholds == "metadata"
  save(tmp_path / "w.safetensors", imported, thresholds_as_metadata=metadata)
  assert_identical(load(tmp_path / "w.safetensors", arch).params, given)
  theirs = {k: v.numpy() for k, v in state_dict(torch, given, counters=False).items()}
  inside = safetensors.numpy.load_file(tmp_path / "w.safetensors")
  if metadata:
    theirs = {k: v for k, v in theirs.items() if not k.startswith("score_predictor")}
  assert inside.keys() == theirs.keys()  # with thresholds as metadata: timm's names and no more
  for name, value in theirs.items():
    np.testing.assert_array_equal(inside[name], value)


def test_thresholds_stand_in_the_header_as_numbers(tmp_path):
  save(tmp_path / "w.safetensors", tiny.params(DEIT), thresholds_as_metadata=True)
  with safetensors.safe_open(tmp_path / "w.safetensors", "numpy") as file:
    metadata = file.metadata()
  assert metadata["format"] == "pt"
  found = np.array(json.loads(metadata["thresholds"]), np.float32)
  np.testing.assert_array_equal(found, tiny.params(DEIT)["thresholds"])


class Malicious:
  """Creates a file when it is unpickled."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return open, (self.path, "w")


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "old"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, torch, new_format):
  path, created = tmp_path / "w.pth", tmp_path / "created"
  content = {"model": state_dict(torch, tiny.params(DEIT)), "args": Malicious(created)}
  torch.save(content, path, _use_new_zipfile_serialization=new_format)
  with pytest.raises(InputError, match=r"w\.pth: refused, as it asks to run code") as caught:
    load(path, DEIT)
  assert "\n" not in str(caught.value)
  assert not created.exists()
  torch.load(path, weights_only=False)  # the file would do it
  assert created.exists()


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "old"])
def test_a_truncated_checkpoint_is_refused_wherever_it_ends(tmp_path, torch, new_format):
  path = tmp_path / "w.pth"
  params = tiny.params(tiny.arch(width=6, depth=5))
  torch.save(state_dict(torch, params), path, _use_new_zipfile_serialization=new_format)
  whole = path.read_bytes()
  for size in (0, 1, 2, 3, 10, 50, 300, 1000, 5000, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:size])
    with pytest.raises(InputError, match=r"w\.pth: (not a readable PyTorch|refused.*damaged)"):
      formats.read(path)


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (lambda torch: {"head.bias": torch.zeros(3), "epoch": 3}, r"not tensors: epoch \(int\)"),
    (lambda torch: {"model": {"a": [1, 2]}}, r"not tensors: a \(list\);"),
    (lambda torch: {}, "expected a dictionary of tensors, found an empty dictionary"),
    (lambda torch: torch.zeros(3), r"expected a dictionary of tensors, found torch\.Tensor"),
  ],
  ids=["epoch", "list", "empty", "tensor"],
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, torch, content, said):
  torch.save(content(torch), tmp_path / "w.pth")
  with pytest.raises(InputError, match=said):
    formats.read(tmp_path / "w.pth")


def test_without_pytorch_the_error_says_what_to_install(tmp_path, monkeypatch):
  (tmp_path / "w.pth").write_bytes(b"anything")
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(
    InputError, match=r"w\.pth: .* needs PyTorch.*not installed: `pip install torch`"
  ):
    formats.read(tmp_path / "w.pth")


@pytest.mark.external
def test_errors_of_the_hub_itself_are_input_errors(monkeypatch):
  hub = pytest.importorskip("huggingface_hub")
  with pytest.raises(InputError, match=r"hf:a/b/c/d: cannot be fetched"):
    load("hf:a/b/c/d", DEIT)  # no such name can be; nothing is asked of the network

  def offline(*arguments, **options):
    raise hub.errors.LocalEntryNotFoundError("offline")

  monkeypatch.setattr(hub, "hf_hub_download", offline)
  with pytest.raises(InputError, match=r"hf:owner/name: cannot be fetched \(offline\)"):
    load("hf:owner/name", DEIT)


def test_without_huggingface_hub_the_error_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(InputError, match="not installed: `pip install huggingface_hub`"):
    load("hf:owner/name", DEIT)


@pytest.mark.parametrize("image_size", [24, 56], ids=["smaller", "larger"])
def test_resize_interpolates_positions_as_pytorch_does(tmp_path, torch, image_size):
  given, other = tiny.params(DEIT), tiny.arch(depth=5, image_size=image_size)
  save(tmp_path / "w.safetensors", given)
  with pytest.raises(InputError, match="pos_embed has shape"):
    load(tmp_path / "w.safetensors", other)
  loaded = load(tmp_path / "w.safetensors", other, resize=True).params
  position = torch.tensor(np.array(given["pos_embed"]))
  grid = position[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
  side = image_size // 8
  grid = torch.nn.functional.interpolate(
    grid, size=(side, side), mode="bicubic", antialias=True, align_corners=False
  )
  expected = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)
  np.testing.assert_allclose(loaded["pos_embed"][:, 1:], expected, atol=1e-4)
  np.testing.assert_array_equal(loaded["pos_embed"][:, :1], given["pos_embed"][:, :1])
  assert_identical(loaded | {"pos_embed": given["pos_embed"]}, given)  # all else as it is


@FAMILIES
def test_a_new_head_replaces_one_of_another_number_of_classes(tmp_path, arch):
  arch = dataclasses.replace(arch, depth=2, prune_before=(1,))
  given, path = tiny.params(arch), tmp_path / "w.safetensors"
  other = dataclasses.replace(arch, classes=9)
  save(path, given)
  with pytest.raises(InputError, match=r"head\.bias has shape \(5,\), expected \(9,\)"):
    load(path, other)
  loaded = load(path, other, new_head=True).params
  heads = {name for name in given if name.endswith("head")}
  assert heads == ({"head", "aux_head"} if arch.aux_head else {"head"})
  for name in heads:
    assert loaded[name]["kernel"].shape == (24, 9)
    assert np.abs(loaded[name]["kernel"]).max() > 0
  assert_identical({k: v for k, v in loaded.items() if k not in heads}, _without(given, heads))
  # Where the number of classes agrees, the head stays.
  assert_identical(load(path, arch, resize=True, new_head=True).params, given)


def _without(params, names):
  return {name: value for name, value in params.items() if name not in names}


def test_thresholds_are_left_out_of_no_pruned_network(tmp_path):
  # As metadata they are read although no tensor of the file says so; a dense one must refuse them.
  save(tmp_path / "w.safetensors", tiny.params(DEIT), thresholds_as_metadata=True)
  with pytest.raises(InputError, match=r"unexpected score_predictor\.0\.keep_threshold"):
    load(tmp_path / "w.safetensors", DEIT.dense)
  save(tmp_path / "d.safetensors", vit.without_thresholds(tiny.params(DEIT)))
  assert not load(tmp_path / "d.safetensors", DEIT).prunes


@pytest.mark.external
def test_averaged_weights_are_chosen_by_key_and_the_choice_is_said(tmp_path, torch, capsys):
  params = tiny.params(DEIT)
  raw, averaged = state_dict(torch, params), state_dict(torch, params, "module.")
  averaged = {k: v + 1 for k, v in averaged.items()}
  content = {"model": raw, "model_ema": averaged, "metric": np.float64(83.3), "epoch": 3}
  torch.save(content, tmp_path / "w.pth")
  assert_identical(load(tmp_path / "w.pth", DEIT).params, params)
  said = capsys.readouterr().err
  assert "using 'model'; the file also has model_ema (--weights-key)" in said
  for key in ("model_ema", "model_ema.module"):
    found = load(tmp_path / "w.pth", DEIT, key=key).params["norm"]["bias"]
    np.testing.assert_array_equal(found, params["norm"]["bias"] + 1)
  with pytest.raises(InputError, match=r"no 'teacher' in it: choose from model, model_ema"):
    load(tmp_path / "w.pth", DEIT, key="teacher")
  torch.save({"state_dict_ema": averaged}, tmp_path / "w.pth")  # nothing else there
  found = load(tmp_path / "w.pth", DEIT).params["norm"]["bias"]
  np.testing.assert_array_equal(found, params["norm"]["bias"] + 1)


@pytest.mark.external
def test_a_checkpoint_of_lightning_is_read_with_its_hyper_parameters(tmp_path, torch, monkeypatch):
  module = types.ModuleType("lightning_fabric.utilities.data")

  class AttributeDict(dict):
    pass

  AttributeDict.__module__, AttributeDict.__qualname__ = module.__name__, "AttributeDict"
  module.AttributeDict = AttributeDict
  for name in ("lightning_fabric", "lightning_fabric.utilities"):
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
  monkeypatch.setitem(sys.modules, module.__name__, module)
  content = {
    "state_dict": state_dict(torch, tiny.params(DEIT), "model."),
    "hyper_parameters": AttributeDict(lr=1e-3, layers=[1, 2], root=pathlib.Path("data")),
    "pytorch-lightning_version": "2.5.0",
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.8)}},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
  }
  torch.save(content, tmp_path / "last.ckpt")
  assert_identical(load(tmp_path / "last.ckpt", DEIT).params, tiny.params(DEIT))


class Whole:
  """Somebody's network, saved as an object."""


@pytest.mark.external
def test_a_message_names_the_type_and_has_no_terminal_codes(tmp_path, torch):
  torch.save({"model": Whole()}, tmp_path / "w.pth")
  with pytest.raises(
    InputError, match=r"holds a test_weight_files\.Whole, and only.*state_dict\(\)"
  ) as c:
    load(tmp_path / "w.pth", DEIT)
  torch.save(torch.zeros(3), tmp_path / "t.pth")
  with pytest.raises(
    InputError, match=r"expected a dictionary of tensors, found torch\.Tensor"
  ) as d:
    load(tmp_path / "t.pth", DEIT)
  torch.save({"a": [1, 2], "b": "text"}, tmp_path / "l.pth")
  with pytest.raises(InputError, match=r"not tensors: a \(list\), b \(str\);") as e:
    load(tmp_path / "l.pth", DEIT)
  for error in (c, d, e):
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)
