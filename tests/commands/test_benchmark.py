import pytest
from command_lines import run
from PIL import Image

from asvit_jax.core.errors import InputError
from asvit_jax.network import create

SMALL = ("--variant", "digits", "--batch", 2, "--rounds", 1)


def test_it_ends_with_the_line_of_the_contract(tmp_path):
  plot = tmp_path / "speed.png"
  result = run("benchmark", *SMALL, "--budget", 0.5, "--execution", "masked", "--plot", plot)
  keys = {"variant", "budget", "batch", "dtype", "device", "jax", "kept", "macs_ratio"}
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
    (("--weights", weights), "give --weights and --images together"),
    (("--images", tmp_path), "give --weights and --images together"),
    (("--weights", weights, "--images", tmp_path), r"w\.safetensors does not fit"),
    (("--weights", tmp_path / "none", "--images", tmp_path), "no such file"),
  ):
    with pytest.raises(InputError, match=said):
      run("benchmark", "--variant", "deit_t", *flags)
