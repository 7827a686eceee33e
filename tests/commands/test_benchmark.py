import dataclasses

import numpy as np
import pytest
from command_lines import run
from PIL import Image

from asvit_jax.config import options
from asvit_jax.core.errors import InputError
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.evaluation import speed
from asvit_jax.network import create
from asvit_jax.vit import VARIANTS

SMALL = ("--variant", "digits", "--batch", 2, "--rounds", 1)


@pytest.mark.slow
def test_it_ends_with_the_line_of_the_contract(tmp_path):
  plot = tmp_path / "speed.png"
  result = run("benchmark", *SMALL, "--budget", 0.5, "--execution", "masked", "--plot", plot)
  keys = {"variant", "reduction", "budget", "batch", "dtype", "device", "jax", "kept", "macs_ratio"}
  assert set(result) == keys | {"images_per_s", "results"}  # no speedup: packed was not asked for
  assert (result["variant"], result["batch"]) == ("digits", 2)
  assert set(result["results"]) == set(result["images_per_s"]) == {"dense", "masked"}
  assert result["macs_ratio"] == pytest.approx(2, rel=0.1)
  assert [set(stage) for stage in result["kept"]] == [{"mean", "std"}] * 3
  with Image.open(plot) as picture:
    assert picture.format == "PNG"


def test_bad_input_is_refused_before_anything_is_compiled(tmp_path):
  weights = tmp_path / "w.safetensors"
  create("digits").save(weights)
  for flags, said in (
    (("--budget", 1.5), r"budget 1\.5 is not in"),
    (("--image-size", "224x450"), r"image size \(224, 450\) is not a multiple of patch size 16"),
    (("--weights", weights), "give --weights and --images together"),
    (("--images", tmp_path), "give --weights and --images together"),
    (("--weights", weights, "--images", tmp_path), "are for digits, not for --variant deit_t"),
    (("--weights", tmp_path / "none", "--images", tmp_path), "no such file"),
  ):
    with pytest.raises(InputError, match=said):
      run("benchmark", "--variant", "deit_t", *flags)


def test_unknown_names_are_refused():
  for flags, said in (
    (("--variant", "deit_x"), "--variant 'deit_x': choose from deit_t"),
    (("--execution", "fast"), "--execution fast: choose from dense"),
  ):
    with pytest.raises(InputError, match=said):
      run("benchmark", *flags)


@pytest.mark.slow
def test_weights_for_several_budgets_are_timed_at_the_one_asked_for(tmp_path):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (32, 48, 48, 3), dtype=np.uint8)
  for i, image in enumerate(images):
    Image.fromarray(image).save(tmp_path / f"{i:02}.png")
  weights = tmp_path / "dial.safetensors"
  dial = speed.sharpened(create("digits"))
  dial = dataclasses.replace(dial, preprocessing=Preprocessing(crop_ratio=1.0))
  dial.calibrate(images, (0.4, 0.8)).save(weights)
  ours = ("--weights", weights, "--images", tmp_path, "--batch", 2, "--rounds", 1)
  kept = []
  for budget in (0.4, 0.8):
    result = run("benchmark", *ours, "--budget", budget, "--execution", "masked")
    assert result["macs_ratio"] == pytest.approx(1 / budget, rel=0.15)
    kept.append(result["kept"][0]["mean"])
  assert kept[0] < kept[1]
  with pytest.raises(InputError, match="has thresholds, and drops: leave out --reduction"):
    run("benchmark", *ours, "--reduction", "merge")


@pytest.mark.slow
def test_merging_is_timed_where_it_is_asked_for():
  small = ("--variant", "digits", "--batch", 1, "--rounds", 1, "--execution", "top_k")
  result = run("benchmark", *small, "--reduction", "merge", "--budget", 0.5)
  stages = len(options.merging(VARIANTS["digits"].depth)["prune_before"])
  assert stages != len(VARIANTS["digits"].prune_before)
  assert (result["reduction"], len(result["kept"])) == ("merge", stages)
