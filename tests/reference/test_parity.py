import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from asvit_jax import weights
from asvit_jax.core.errors import InputError
from asvit_jax.reference import check as parity

FILES = Path(__file__).parents[1] / "golden"
GOLDEN = FILES / "deit_parity.npz"
LVVIT = FILES / "lvvit_parity.npz"


def changed(tmp_path, changes, golden=GOLDEN):
  """A copy of a golden file; `changes` maps a name to a function of its array."""
  with np.load(golden) as file:
    arrays = {name: file[name] for name in file.files}
  for name, change in changes.items():
    arrays[name] = change(arrays[name])
  np.savez(tmp_path / "changed.npz", **arrays)
  return tmp_path / "changed.npz"


def with_temperature(meta):
  return np.array(json.dumps(json.loads(str(meta)) | {"temperature": 2e-4}))


def failing(errors):
  return {kind for kind, tolerance in parity.TOLERANCES.items() if not errors[kind] <= tolerance}


@pytest.mark.optimized
@pytest.mark.parametrize(
  "golden", [GOLDEN, pytest.param(LVVIT, marks=pytest.mark.slow)], ids=lambda path: path.stem
)
def test_the_authors_numbers_are_met(golden):
  # By itself, as a user runs it. Few widths of the packed execution compile fast, and test_packing
  # tries them all.
  command = (
    "import runpy; from asvit_jax.sparsity.executions import packed; "
    "packed.STEP = 64; "
    "runpy.run_module('asvit_jax.parity', run_name='__main__')"
  )
  process = subprocess.run(
    [sys.executable, "-c", command, golden],
    cwd=GOLDEN.parents[2],
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stderr
  errors = json.loads(process.stdout.splitlines()[-1])
  assert failing(errors) == set()
  assert errors["ok"] is True


@pytest.mark.parametrize(
  ("name", "change", "expected"),
  [
    # The second stage lets one more token through, or one fewer.
    pytest.param(
      *("student/score_predictor.1.keep_threshold", lambda t: t * np.float32(1.05), "masks"),
      marks=pytest.mark.slow,
    ),
    pytest.param("meta", with_temperature, "gradient", marks=pytest.mark.slow),
  ],
  ids=["threshold", "temperature"],
)
def test_a_file_with_one_thing_changed_is_not_met(tmp_path, name, change, expected, short_ladders):
  errors = parity.check(changed(tmp_path, {name: change}))
  assert expected in failing(errors)
  assert errors["ok"] is False


def test_a_trajectory_is_held_as_far_as_it_is_stable():
  # Losses that double every difference: of weights moved by 1e-7, a multiple of that is no error;
  # another loss, and the same in the first two steps, is.
  rng = np.random.default_rng(0)
  weights_ = {"w": rng.standard_normal(50).astype(np.float32)}
  hyper = {"lr": 0.0, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}

  def make(scale, since=2):
    step = iter(range(10**6))

    def loss_and_grads(params):
      i = next(step) % 6
      moved = (params["w"] - weights_["w"]) @ np.ones(50, np.float32)
      return (1.0 + 1e4 * (i >= since) * 2.0**i * moved + scale * (i >= 2) * 2.0**i, None), params

    return loss_and_grads

  reference = {"trajectory/loss": np.ones(6)}
  early, later = parity._trajectory_errors(make(0.0), weights_, hyper, reference)
  assert (early, later) == (0, 0)
  early, later = parity._trajectory_errors(make(1e-3), weights_, hyper, reference)
  assert early == 0
  assert later < parity.TOLERANCES["trajectory_later"]
  early, later = parity._trajectory_errors(make(1.0), weights_, hyper, reference)
  assert later > parity.TOLERANCES["trajectory_later"]
  reference["trajectory/loss"][1] += 1e-3
  early, later = parity._trajectory_errors(make(0.0), weights_, hyper, reference)
  assert early > parity.TOLERANCES["trajectory"]
  # The second loss is stable there; where it is not, it is held as the later ones are.
  unstable = make(0.0, since=1)
  early, later = parity._trajectory_errors(unstable, weights_, hyper, reference)
  assert early == 0
  assert 0 < later < parity.TOLERANCES["trajectory_later"]


def test_a_running_variance_that_differs_is_seen():
  # All of `check` again would take a minute.
  params = tiny.params(tiny.arch(**tiny.LV))
  theirs = {k: v for k, v in weights.to_timm(params).items() if ".running_" in k}
  assert len(theirs) == 6
  assert parity._statistics_error(params, theirs) == 0
  theirs["patch_embed.bn2.running_var"] = theirs["patch_embed.bn2.running_var"] * 1.001
  assert parity._statistics_error(params, theirs) == pytest.approx(1e-3, rel=1e-2)
  assert parity.TOLERANCES["statistics"] < 1e-3


def test_other_files_are_refused(tmp_path):
  with pytest.raises(InputError, match=r"none\.npz: no such file"):
    parity.check(tmp_path / "none.npz")
  (tmp_path / "text.npz").write_text("not an archive")
  with pytest.raises(InputError, match=r"not a readable \.npz file"):
    parity.check(tmp_path / "text.npz")
  np.savez(tmp_path / "other.npz", a=np.zeros(3))
  with pytest.raises(InputError, match="no `meta` entry"):
    parity.check(tmp_path / "other.npz")
  (tmp_path / "cut.npz").write_bytes(GOLDEN.read_bytes()[:1_000_000])
  with pytest.raises(InputError, match=r"not a readable \.npz file"):
    parity.check(tmp_path / "cut.npz")


def test_a_file_of_another_kind_of_network_is_refused(tmp_path):
  path = changed(tmp_path, {"meta": lambda meta: np.array(str(meta).replace('"vit"', '"swin"'))})
  with pytest.raises(InputError, match="'swin': expected one of vit, lvvit"):
    parity.check(path)


def test_a_file_that_lacks_a_number_is_refused(tmp_path):
  with np.load(GOLDEN) as file:
    arrays = {name: file[name] for name in file.files if name != "student/norm.bias"}
  np.savez(tmp_path / "lacking.npz", **arrays)
  with pytest.raises(InputError, match=r"missing norm\.bias"):
    parity.check(tmp_path / "lacking.npz")
