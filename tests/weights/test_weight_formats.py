"""What holds for every format of weights."""

import numpy as np
import pytest
import test_weight_files
import tiny

from asvit_jax import weights
from asvit_jax.config import identity
from asvit_jax.core.errors import InputError
from asvit_jax.run.checkpoints import Checkpoints
from asvit_jax.run.state import TrainState
from asvit_jax.weights import formats
from asvit_jax.weights.saving import save

ARCH = tiny.TRAINED
PARAMS = tiny.params(ARCH)


def write_safetensors(path, monkeypatch):
  save(path / "w.safetensors", PARAMS)
  return path / "w.safetensors"


def write_pytorch(path, monkeypatch):
  torch = pytest.importorskip("torch")
  torch.save({"model": test_weight_files.state_dict(torch, PARAMS, "module.")}, path / "w.pth")
  return path / "w.pth"


def write_hub(path, monkeypatch):
  hub = pytest.importorskip("huggingface_hub")
  place = write_repository(path, monkeypatch)

  def download(repository, file, revision=None):
    if not (place / file).is_file():
      raise hub.errors.EntryNotFoundError(file)
    return str(place / file)

  monkeypatch.setattr(hub, "hf_hub_download", download)
  return "hf:owner/name"


def write_repository(path, monkeypatch):
  save(path / "w" / "model.safetensors", PARAMS)
  return path / "w"


def write_npz(path, monkeypatch):
  np.savez(path / "w.npz", **weights.to_timm(PARAMS))
  return path / "w.npz"


def write_workdir(path, monkeypatch):
  identity.save(tiny.plan_of("", budget=0.6, ema_decay=0.0), path / "run")
  checkpoints = Checkpoints(path / "run")
  checkpoints.save(TrainState(np.int32(3), PARAMS, None, {}, np.int32(0)))
  checkpoints.wait()
  return path / "run"


# A format that is added needs a function that writes `PARAMS` in it.
WRITERS = {
  "safetensors": write_safetensors,
  "pytorch": write_pytorch,
  "hub": write_hub,
  "repository": write_repository,
  "npz": write_npz,
  "workdir": write_workdir,
}


@pytest.fixture(
  params=[
    pytest.param(name, marks=[pytest.mark.external] if name in ("pytorch", "hub") else ())
    for name in formats.FORMATS
  ]
)
def written(request, tmp_path, monkeypatch, tiny_variant):
  """(name of a format, where weights stand in it)."""
  return request.param, WRITERS[request.param](tmp_path, monkeypatch)


def test_a_format_gives_the_tensors_to_the_bit_and_is_the_one_that_recognizes_them(written):
  name, source = written
  recognizing = [n for n in formats.FORMATS if formats.FORMATS[n].recognizes(str(source))]
  assert recognizing[0] == name
  stored = formats.read(source)
  expected = weights.to_timm(PARAMS)
  assert stored.tensors.keys() == expected.keys()
  for tensor, value in expected.items():
    assert stored.tensors[tensor].dtype == value.dtype
    np.testing.assert_array_equal(stored.tensors[tensor], value)
  assert isinstance(stored.description, dict)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_what_is_not_there_is_no_format_s_own_but_the_hub_s(tmp_path, name):
  assert not formats.FORMATS[name].recognizes(str(tmp_path / "none"))


def test_the_error_for_what_is_not_there_says_what_could_be():
  with pytest.raises(InputError) as caught:
    formats.read("nowhere/w.xyz")
  assert "weights nowhere/w.xyz: no such file" in str(caught.value)
  assert all(formats.FORMATS[name].expects in str(caught.value) for name in formats.FORMATS)
