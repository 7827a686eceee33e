"""The parts that CONTRIBUTING.md shows, as one file, do what it says."""

import dataclasses
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from asvit_jax import losses, weights
from asvit_jax.core.errors import InputError
from asvit_jax.data import sources
from asvit_jax.export.formats import FORMATS as EXPORT_FORMATS
from asvit_jax.export.writing import export
from asvit_jax.losses.objective import Objective
from asvit_jax.losses.terms import LOSSES
from asvit_jax.network import load
from asvit_jax.run import metrics
from asvit_jax.training.train import train
from asvit_jax.weights.formats import FORMATS as WEIGHT_FORMATS

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def my_parts(tmp_path_factory):
  """All examples of the guide, importable."""
  directory = tmp_path_factory.mktemp("parts")
  examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
  assert len(examples) == 8
  (directory / "my_parts.py").write_text("\n".join(examples))
  with pytest.MonkeyPatch.context() as patched:
    patched.syspath_prepend(directory)
    yield
  sys.modules.pop("my_parts", None)


@pytest.mark.parametrize(
  "part",
  [
    {"score": "my_parts:mean_attention"},
    {"reduction": "my_parts:share_mean"},
    {"attention": "my_parts:sharper"},
  ],
  ids=lambda part: next(iter(part)),
)
def test_a_part_of_the_network_runs_packed_as_masked_and_travels_with_it(
  tmp_path, part, short_ladders
):
  usual_arch = dataclasses.replace(tiny.TRAINED, depth=3, prune_before=(1, 2))
  arch = dataclasses.replace(usual_arch, **part)
  network = tiny.network(arch).calibrate(PIXELS, 0.7)
  masked, packed = (network(PIXELS, execution) for execution in ("masked", "packed"))
  np.testing.assert_array_equal(packed.keep, masked.keep)
  np.testing.assert_allclose(packed.logits, masked.logits, atol=2e-5)
  usual = dataclasses.replace(network, arch=usual_arch)(PIXELS, "masked")
  assert np.abs(usual.logits - masked.logits).max() > 1e-4
  network.save(tmp_path / "w.safetensors")
  with pytest.raises(InputError, match=r"names my_parts:\w+, code outside.*--parts=my_parts:"):
    load(tmp_path / "w.safetensors")  # nobody typed it
  assert load(tmp_path / "w.safetensors", parts=part.values()).arch == arch


@pytest.mark.slow
def test_a_run_takes_an_optimizer_a_source_and_an_architecture_of_its_own(tmp_path):
  config = tiny.config(
    "",
    **{
      "data.name": "my_parts:gradients",
      "optimizer.name": "my_parts:signed_sgd",
      "model.variant": "mine",
      "model.width": 12,
      "model.heads": 2,
      "model.depth": 2,
      "model.prune_before": (1,),
      "model.num_classes": 2,
      "total_steps": 2,
      "eval.every": 2,
    },
  )
  assert train(config, tmp_path)["images"] == 64
  network = load(tmp_path)
  assert (network.variant, network.arch.depth, network.classes) == ("mine", 2, ("right", "left"))


def test_a_loss_term_is_a_key_is_logged_and_counts(tmp_path, monkeypatch, folder, tiny_variant):
  monkeypatch.setitem(LOSSES._places, "entropy", "my_parts:entropy")
  monkeypatch.setitem(losses.WEIGHTS, "entropy", 0.0)
  config = tiny.config(folder, total_steps=1, **{"loss.entropy": -0.5})
  train(config, tmp_path / "run")
  (line,) = metrics.read(tmp_path / "run", "train")
  assert line["entropy"] > 0
  np.testing.assert_allclose(line["loss"], line["classification"] - 0.5 * line["entropy"], 1e-5)
  assert Objective({"entropy": 1.0}).weights == {"entropy": 1.0}


def test_weights_of_another_format_are_read(tmp_path, monkeypatch):
  params = tiny.params(tiny.TRAINED.dense)
  with (tmp_path / "w.zip").open("wb") as file:
    np.savez(file, **weights.to_timm(params))
  with pytest.raises(InputError, match="not a readable safetensors"):
    load(tmp_path / "w.zip", tiny.TRAINED)
  before = {"zip": "my_parts:zip_of_arrays"} | WEIGHT_FORMATS._places
  monkeypatch.setattr(WEIGHT_FORMATS, "_places", before)
  loaded = load(tmp_path / "w.zip", tiny.TRAINED)
  jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_an_export_format_is_verified(tmp_path):
  network = tiny.network(tiny.TRAINED).calibrate(PIXELS, 0.7)
  note = export(network, tmp_path / "net", "my_parts:pickled")
  assert note["largest_logit_difference"] < 1e-4
  logits, kept = EXPORT_FORMATS["my_parts:pickled"].load(tmp_path / "net")(PIXELS)
  expected = network(PIXELS, "masked")
  np.testing.assert_allclose(logits, expected.logits, atol=1e-5)
  np.testing.assert_array_equal(kept, expected.kept)


def test_links_and_names_of_tests_lead_somewhere():
  text = GUIDE.read_text()
  targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r"`(tests/[\w/.]+)`", text)
  assert len(targets) > 15
  for target in targets:
    assert (GUIDE.parent / target).exists(), target


def test_the_order_of_rooms_is_the_one_that_is_tested():
  from test_layers import LAYERS

  (diagram,) = re.findall(r"```\n(core ←.*?)```", GUIDE.read_text(), re.DOTALL)
  assert tuple(re.findall(r"\w+", diagram)) == LAYERS


def test_the_source_of_the_guide_is_a_source():
  from asvit_jax.config import base

  config = base()
  config.data.name = "my_parts:gradients"
  source = sources.open_source(config.data, "train")
  assert (len(source), source[3]["label"]) == (64, 1)
