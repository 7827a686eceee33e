"""Weights for speed-ups, from the flags of the commands; the device is one of `paced`."""

import dataclasses
import json

import numpy as np
import paced
import pytest
import tiny
from command_lines import run

from asvit_jax.core.errors import InputError
from asvit_jax.network import load

ARCH = tiny.TRAINED

pytestmark = pytest.mark.usefixtures("tiny_variant", "short_ladders")


@pytest.fixture(scope="module", autouse=True)
def device():
  """What is timed is what is predicted."""
  with pytest.MonkeyPatch.context() as patched:
    yield paced.install(patched)


@pytest.fixture(scope="module")
def options(dense_flags):
  """The config and the dense weights of a network, as flags."""
  return dense_flags()


@pytest.fixture(scope="module")
def fast(options, place, device, tiny_variant, short_ladders):
  """(flags for weights that were calibrated for two speed-ups, the result of that)."""
  path = place / "fast.safetensors"
  given = ("--calibrate-speedup", "1.4,1.7", "--speed-batch", 4, "--save-weights", path)
  result = run("evaluate", *options, *given, "--calibrate-split", "train")
  return (*options[:2], "--weights", path), result


def test_evaluate_says_what_was_asked_and_reached(fast):
  flags, result = fast
  assert [speed["asked"] for speed in result["speedups"]] == [1.4, 1.7]
  for speed in result["speedups"]:
    assert {"predicted", "reached", "execution", "budget", "counts", "batch"} <= speed.keys()
    assert speed["reached"] == pytest.approx(speed["asked"], rel=0.1)
    assert speed["batch"] == 4
  assert [point["speedup"] for point in result["curve"]] == [1.4, 1.7]
  assert result["curve"][0]["share"] > result["curve"][1]["share"]
  assert result["execution"] == result["speedups"][0]["execution"]
  assert [s.to_json() for s in load(flags[-1]).speedups] == result["speedups"]
  json.dumps(result)


def test_the_tools_run_the_speed_asked_for_or_the_first(fast, one_folder, tmp_path):
  flags, result = fast
  assert run("evaluate", *flags)["speedup"] == 1.4
  second = run("evaluate", *flags, "--speedup", 1.7)
  assert second["speedup"] == 1.7
  assert second["share"] == pytest.approx(result["curve"][1]["share"])
  both = run("evaluate", *flags, "--speedup", "1.7,1.4")
  assert [point["speedup"] for point in both["curve"]] == [1.7, 1.4]
  image = next(one_folder.glob("val/*/*"))
  costs = [
    run("predict", *flags, *asked, image)["predictions"][0]["gmacs"]
    for asked in ((), ("--speedup", 1.4), ("--speedup", 1.7))
  ]
  assert costs[0] == costs[1] > costs[2]
  out = tmp_path / "at.safetensors"
  note = run("export", *flags, "--speedup", 1.7, "--format", "safetensors", "--out", out)
  assert note["budget"] == result["speedups"][1]["budget"]
  assert note["speedups"] == result["speedups"][1:]
  expected = load(flags[-1]).at_speedup(1.7)
  assert load(out).speedups == expected.speedups
  np.testing.assert_array_equal(load(out).params["thresholds"], expected.params["thresholds"])


def test_a_speed_that_fixed_reached_is_exported_fixed(fast, tmp_path):
  flags, _ = fast
  network = load(flags[-1])
  found = tuple(dataclasses.replace(speed, execution="fixed") for speed in network.speedups)
  path, out = tmp_path / "fixed.safetensors", tmp_path / "net.zip"
  dataclasses.replace(network, speedups=found).save(path)
  flags = (*flags[:-1], path, "--speedup", 1.7)
  result = run("evaluate", *flags)
  assert result["execution"] == "fixed"
  assert [stage["max"] for stage in result["kept"]] == list(network.counts[1])
  note = run("export", *flags, "--format", "stablehlo", "--out", out, "--batch", 1)
  assert (note["execution"], note["counts"]) == ("fixed", [list(network.counts[1])])


def test_benchmark_times_the_speed_asked_for(fast, one_folder):
  flags, result = fast
  given = ("--weights", flags[-1], "--images", one_folder / "val", "--batch", 4, "--rounds", 1)
  timed = run("benchmark", *given, "--variant", "tiny", "--speedup", 1.7, "--execution", "masked")
  assert timed["budget"] == result["speedups"][1]["budget"]


def test_the_same_seed_finds_the_same(options, tmp_path):
  found = []
  for name in ("a.safetensors", "b.safetensors"):
    given = ("--calibrate-speedup", 1.5, "--speed-batch", 4, "--seed", 3, "--save-weights")
    run("evaluate", *options, *given, tmp_path / name)
    found.append(load(tmp_path / name))
  assert found[0] == found[1]


@pytest.mark.parametrize(
  ("command", "flags", "said"),
  [
    ("evaluate", ("--speedup", "1.5"), r"speed-up 1\.5: the network was calibrated for 1\.4, 1\.7"),
    ("evaluate", ("--speedup", "fast"), "--speedup 'fast': expected speed-ups"),
    ("evaluate", ("--speedup", "1.4", "--budget", "0.6"), "--speedup and --budget exclude"),
    ("evaluate", ("--calibrate-speedup", "0.9"), r"--calibrate-speedup '0\.9': .* above 1"),
    ("evaluate", ("--calibrate-speedup", "1.5,1.5"), "different ones"),
    ("evaluate", ("--calibrate-speedup", "1.5,"), "expected speed-ups"),
    ("evaluate", ("--calibrate-speedup", "1.5", "--calibrate", "0.6"), "both set the thresh"),
    ("evaluate", ("--calibrate-speedup", "1.5", "--budget", "0.6"), "choose with --speedup"),
    ("evaluate", ("--calibrate", "0.6", "--speedup", "1.4"), "choose with --budget"),
    ("evaluate", ("--calibrate-speedup", "1.5", "--speedup", "1.6"), "is not among those"),
    ("evaluate", ("--calibrate-speedup", "1.5", "--search", "3"), "tries schedules itself"),
    ("evaluate", ("--speedup", "1.4", "--counts", "9,5,2"), "a speed-up has counts of its own"),
    ("evaluate", ("--calibrate-speedup", "99"), "speed-up 99 cannot be reached: with every patch"),
    ("evaluate", ("--speedup", "1.4,1.7", "--per-image", "f"), "--per-image is for one speed-up"),
    ("predict", ("--speedup", "1.4,1.7"), "expected one speed-up"),
    ("predict", ("--speedup", "1.5"), "calibrated for 1.4, 1.7"),
    ("predict", ("--speedup", "1.4", "--budget", "0.9"), "--speedup and --budget exclude"),
  ],
)
def test_what_cannot_be_is_refused(fast, one_folder, command, flags, said):
  images = (next(one_folder.glob("val/*/*")),) if command == "predict" else ()
  with pytest.raises(InputError, match=said):
    run(command, *fast[0], *flags, *images)


def test_benchmark_without_weights_has_no_speed_to_run():
  with pytest.raises(InputError, match="--speedup needs weights that were calibrated for it"):
    run("benchmark", "--variant", "tiny", "--speedup", 1.5)


def test_a_network_of_no_speed_says_so(options):
  with pytest.raises(InputError, match=r"speed-up 1\.5: the network was calibrated for none"):
    run("evaluate", *options, "--speedup", 1.5)


def test_benchmark_of_images_of_another_size_has_neither_their_speeds_nor_counts(fast, one_folder):
  flags = (*fast[0][2:], "--images", one_folder / "val", "--image-size", 8, "--rounds", 1)
  with pytest.raises(InputError, match=r"speed-up 1\.4: .* its images are of another size now"):
    run("benchmark", *flags, "--speedup", 1.4)
  budgets = [speed.budget for speed in load(fast[0][-1]).speedups]
  given = ("--budget", np.mean(budgets), "--batch", 4, "--execution", "fixed")
  result = run("benchmark", *flags, *given)
  assert result["counts"] == [round(stage["mean"]) for stage in result["kept"]]
