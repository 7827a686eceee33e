"""A workdir with exported weights in it is still the run's."""

import jax
import numpy as np
import pytest
import test_weight_formats
import tiny
from command_lines import run

from asvit_jax import load
from asvit_jax.core.errors import InputError
from asvit_jax.network import load_configured
from asvit_jax.weights import formats
from asvit_jax.weights.saving import save

ARCH, PARAMS = test_weight_formats.ARCH, test_weight_formats.PARAMS
OTHERS = tiny.params(ARCH, seed=1)


def same(params, others):
  return jax.tree.all(jax.tree.map(np.array_equal, dict(params), dict(others)))


@pytest.fixture
def workdir(tmp_path, monkeypatch, tiny_variant):
  """A run of one checkpoint, with other weights under the hub's name beside it."""
  path = test_weight_formats.write_workdir(tmp_path, monkeypatch)
  save(path / "model.safetensors", OTHERS, tiny.network(ARCH).describe())
  return path


def test_the_run_is_meant_and_what_is_beside_is_named(workdir, capfd):
  found = load(workdir)
  assert same(found.params, PARAMS)
  (line,) = [x for x in capfd.readouterr().err.splitlines() if "model.safetensors" in x]
  assert "holds a run and model.safetensors: using the weights of the run" in line
  assert same(load(workdir, step="3", weights_of="raw").params, PARAMS)
  with pytest.raises(InputError, match=r"step"):
    load(workdir, step="4")
  assert same(load(workdir / "model.safetensors").params, OTHERS)
  config = tiny.config("", budget=0.6)
  assert same(load_configured(str(workdir), tiny.plan(config)).params, PARAMS)


@pytest.mark.parametrize("flag", ["workdir", "weights"])
def test_so_it_is_on_a_command_line(workdir, flag, tmp_path):
  out = tmp_path / "w.safetensors"
  run("export", f"--{flag}", workdir, "--step", "latest", "--format", "safetensors", "--out", out)
  assert same(load(out).params, PARAMS)


def test_a_workdir_is_one_although_nothing_but_the_flag_says_so(workdir):
  """Of a run without checkpoints, the weights beside it are what there is; not of --workdir."""
  (workdir / "checkpoints").rename(workdir / "away")
  assert same(load(workdir).params, OTHERS)
  with pytest.raises(InputError, match="has no checkpoint yet"):
    formats.read(workdir, form="workdir")
  with pytest.raises(InputError, match="has no checkpoint yet"):
    run("export", "--workdir", workdir, "--format", "safetensors", "--out", workdir / "new")


def test_a_directory_of_the_hub_with_checkpoints_is_the_hubs(tmp_path):
  save(tmp_path / "model.safetensors", OTHERS, tiny.network(ARCH).describe())
  (tmp_path / "checkpoints").mkdir()
  for content in (None, '{"architectures": ["other"]}'):
    if content is not None:
      (tmp_path / "config.json").write_text(content)
    assert same(load(tmp_path).params, OTHERS)
