"""Runs, weights and artifacts written by the code of before (commit 6da8849) still load.

`golden/before.zip` holds small files that it wrote: a run of the network `tiny.TRAINED`, stopped
after step 4 of 6, with its data and the metrics of the undisturbed run; its final weights in both
layouts of thresholds; a StableHLO artifact; and what the network says of five images.
"""

import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from asvit_jax.config import identity
from asvit_jax.data import sources
from asvit_jax.evaluation.accuracy import evaluate
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.network import load, load_configured
from asvit_jax.run import metrics
from asvit_jax.training.train import train

pytestmark = pytest.mark.usefixtures("tiny_variant")


@pytest.fixture
def before(tmp_path, monkeypatch):
  """The files, in the current directory, as the run's config names them."""
  with zipfile.ZipFile(Path(__file__).parent / "golden" / "before.zip") as archive:
    archive.extractall(tmp_path)
  monkeypatch.chdir(tmp_path)
  return dict(np.load("expected.npz"))


@pytest.mark.parametrize("name", ["thresholds_by_name", "exported"])
def test_weights_say_what_they_said(before, name):
  network = load(f"{name}.safetensors", tiny.TRAINED)
  np.testing.assert_array_equal(network.params["thresholds"], before["thresholds"])
  outputs = network(before["images"], "masked")
  np.testing.assert_allclose(outputs.logits, before["logits"], atol=1e-5)
  np.testing.assert_array_equal(outputs.kept, before["kept"])


def test_an_artifact_says_what_it_said(before):
  artifact = load_artifact("net.stablehlo.zip")
  assert (artifact.arch, artifact.classes) == (tiny.TRAINED, ("ant", "bee", "cat"))
  for count in (5, 2):
    logits, kept = artifact(before["images"][:count])
    np.testing.assert_allclose(logits, before["logits"][:count], atol=1e-5)
    np.testing.assert_array_equal(kept, before["kept"][:count])


def test_a_run_is_understood(before):
  config = identity.load("run")
  assert config.data.crop_ratio == 0.875
  network = load("run")
  assert (network.arch, network.variant) == (tiny.TRAINED, "tiny")
  jax.tree.map(
    np.testing.assert_array_equal, network.params, load_configured("run", tiny.plan(config)).params
  )
  source = sources.open_source(config.data, "val")
  assert evaluate(network, config, source)["images"] == 10


@pytest.mark.slow
@pytest.mark.optimized
def test_a_run_goes_on_as_if_nothing_had_happened(before):
  config = tiny.config("images", **_CHANGES)
  result = train(config, "run")
  assert result["step"] == 6
  ours = [line for line in metrics.read("run") if line["step"] > 4]
  theirs = metrics.read(_as_workdir("metrics_of_the_whole_run.jsonl"))
  theirs = [line for line in theirs if line["step"] > 4]
  assert [line["kind"] for line in ours] == [line["kind"] for line in theirs]
  for a, b in zip(ours, theirs, strict=True):
    assert a.keys() - {"real_gmacs", "target"} == b.keys()  # which are new
    for key in b.keys() - {"images_per_s", "data_wait", "kind"}:
      # Another CPU rounds otherwise, and the slopes of the masks are steep.
      tolerance = 1e-3 if key == "grad_norm" else 1e-4
      for x, y in zip(jax.tree.leaves(a[key]), jax.tree.leaves(b[key]), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=1e-6, err_msg=key)


# Of the run, besides `tiny.config`.
_CHANGES = {
  "init_from": "dense.safetensors",
  "budget": 0.6,
  "thresholds": "calibrated",
  "eval.pictures": 0,
  "data.repeats": 2,
  "data.rand_augment": 9.0,
  "mix.mixup": 0.8,
  "mix.cutmix": 1.0,
  "mix.erasing": 0.25,
  "optimizer.clip_norm": 5.0,
  "optimizer.thresholds_lr": 2.0,
}


def _as_workdir(file):
  workdir = Path("whole")
  workdir.mkdir()
  Path(file).rename(workdir / "metrics.jsonl")
  return workdir
