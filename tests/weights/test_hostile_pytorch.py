"""PyTorch files that a stranger wrote: refused in a line, before memory is taken for them."""

import re
import zipfile

import numpy as np
import pytest
import tiny
from raw_weights import bounded
from test_weight_files import state_dict, torch  # noqa: F401

from asvit_jax import weights
from asvit_jax.core.errors import InputError
from asvit_jax.network import load
from asvit_jax.weights import formats

ARCH = tiny.arch(width=12, depth=2, prune_before=(1,))
NAME = "blocks.0.mlp.fc1.weight"


def holds_itself(torch):  # noqa: F811
  content = {}
  content["model"] = content
  return content


CONTENTS = {
  "stride 0": (
    lambda t: {NAME: t.zeros(1).expand(1 << 40)},
    rf"tensor {NAME}.*is larger than its data",
  ),
  "rows of one": (
    lambda t: {NAME: t.zeros(1, 3).expand(10_000, 3)},
    "is larger than its data in the file",
  ),
  "many of one": (
    lambda t: dict.fromkeys(map(str, range(100)), t.zeros(1 << 18)),
    r"would take 104,857,600 bytes of memory, expected at most 67,108,864",
  ),
  "sparse": (lambda t: {NAME: t.eye(3).to_sparse()}, rf"tensor {NAME} is of type .*sparse"),
  "quantised": (
    lambda t: {NAME: t.quantize_per_tensor(t.zeros(3), 0.1, 0, t.qint8)},
    "is of type torch.qint8",
  ),
  "meta": (lambda t: {NAME: t.zeros(3, device="meta")}, "on meta"),
  "names": (lambda t: {"a\x1b[2J": t.zeros(3)}, r"cannot be printed, 'a\\x1b\[2J'"),
  "odd names": (lambda t: {"a\x1b[2J": 3}, r"not tensors: a\\x1b\[2J \(int\)"),
  "numbers for names": (lambda t: {3: t.zeros(3)}, r"int \(named by a int\)"),
  "itself": (holds_itself, r"entries that are not tensors: model \(dict\)"),
  "empty": (lambda t: {NAME: t.zeros(0, 3)}, r"is empty, of shape \(0, 3\)"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_tensors_that_are_more_than_their_file_or_no_numbers_are_refused(tmp_path, torch, kind):  # noqa: F811
  content, expected = CONTENTS[kind]
  torch.save(content(torch), tmp_path / "w.pth")
  with bounded() as said:
    load(tmp_path / "w.pth", ARCH)
  assert re.search(expected, said[0])
  assert "\n" not in said[0]


def test_an_archive_that_would_unpack_to_gigabytes_is_refused(tmp_path, torch):  # noqa: F811
  torch.save({"a": torch.zeros(3)}, tmp_path / "small.pth")
  with (
    zipfile.ZipFile(tmp_path / "small.pth") as small,
    zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive,
  ):
    for member in small.infolist():
      archive.writestr(member.filename, small.read(member))
    archive.writestr("w/data/7", b"\0" * (200 << 20))
  with pytest.raises(InputError, match=r"w\.pth would take 209,\d+,\d+ bytes of memory, expected"):
    formats.read(tmp_path / "w.pth")


@pytest.mark.parametrize("kind", ["int8", "bool", "complex64"])
def test_whole_numbers_are_refused_here_too(tmp_path, torch, kind):  # noqa: F811
  state = state_dict(torch, tiny.params(ARCH))
  state[NAME] = state[NAME].to(getattr(torch, kind))
  torch.save(state, tmp_path / "w.pth")
  with pytest.raises(
    InputError, match=rf"tensor {NAME} is of type {kind}, expected floating point"
  ):
    load(tmp_path / "w.pth", ARCH)


def test_what_is_not_finite_is_refused_here_too(tmp_path, torch):  # noqa: F811
  state = state_dict(torch, tiny.params(ARCH))
  state[NAME][1, 2] = float("nan")
  torch.save({"state_dict": state}, tmp_path / "w.ckpt")
  with pytest.raises(InputError, match=rf"tensor {NAME} is not finite: nan at \[1, 2\]"):
    load(tmp_path / "w.ckpt", ARCH)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bits_are_widened_exactly(tmp_path, torch, kind):  # noqa: F811
  state = {k: v.to(getattr(torch, kind)) for k, v in state_dict(torch, tiny.params(ARCH)).items()}
  torch.save(state, tmp_path / "w.pth")
  loaded = weights.to_timm(load(tmp_path / "w.pth", ARCH).params)
  for name, value in state.items():
    np.testing.assert_array_equal(loaded[name], value.float().numpy())
  torch.save(state | {"blocks.0.mlp.fc1.weight_scale": torch.ones(())}, tmp_path / "w.pth")
  with pytest.raises(InputError, match=r"is quantised: .* has a scale beside it"):
    load(tmp_path / "w.pth", ARCH)


def test_views_and_tied_weights_are_read_as_before(tmp_path, torch):  # noqa: F811
  state = state_dict(torch, tiny.params(ARCH))
  whole = torch.cat([state[NAME], state[NAME]])
  state[NAME] = whole[: len(whole) // 2]
  state["blocks.1.mlp.fc1.weight"] = whole[len(whole) // 2 :].t().contiguous().t()
  torch.save(state, tmp_path / "w.pth")
  loaded = weights.to_timm(load(tmp_path / "w.pth", ARCH).params)
  np.testing.assert_array_equal(loaded[NAME], state[NAME].numpy())
  np.testing.assert_array_equal(loaded["blocks.1.mlp.fc1.weight"], state[NAME].numpy())
