"""Speed-ups that networks are asked for, hold, and keep in their files."""

import dataclasses

import jax
import numpy as np
import paced
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.network import Network, load
from asvit_jax.pacing import running, speeds
from asvit_jax.pacing.speeds import Speed
from asvit_jax.weights import saving

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3))
# The parts of this one take long enough beside calling a program.
LARGER = tiny.arch(width=96, depth=4, image_size=96, patch_size=8, prune_before=(1,))


@pytest.fixture(scope="module")
def pixels():
  return np.random.default_rng(4).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def paced_network(pixels):
  """Calibrated for three speed-ups on the device of `paced`."""
  with pytest.MonkeyPatch.context() as patched:
    paced.install(patched)
    return tiny.network(ARCH).calibrate(pixels, speedup=[1.5, 1.2, 1.8], batch=8)


def test_one_network_serves_several_speeds(paced_network, pixels):
  network = paced_network
  assert [speed.asked for speed in network.speedups] == [1.5, 1.2, 1.8]
  assert network.budgets == tuple(speed.budget for speed in network.speedups)
  assert network.budgets[1] > network.budgets[0] > network.budgets[2]
  for row, speed in enumerate(network.speedups):
    one = network.at_speedup(speed.asked)
    assert (one.speedups, one.budgets) == ((speed,), ())
    np.testing.assert_allclose(
      one.params["thresholds"], network.params["thresholds"][row], rtol=1e-5
    )
    assert one.default_execution() == speed.execution
    kept = np.asarray(one(pixels, "masked").kept).mean(axis=0)
    np.testing.assert_allclose(kept, speed.counts, atol=0.6)
    assert one.at_speedup(speed.asked) == one
  assert network.default_execution() == network.speedups[0].execution


def test_networks_keep_the_counts_of_their_speeds(paced_network):
  assert paced_network.counts == tuple(speed.counts for speed in paced_network.speedups)
  for speed in paced_network.speedups:
    assert paced_network.at_speedup(speed.asked).counts == (speed.counts,)


def of_fixed(network):
  """A network at its first speed, as if it had reached that in fixed execution."""
  one = network.at_speedup(network.speedups[0].asked)
  speed = dataclasses.replace(one.speedups[0], execution="fixed")
  return dataclasses.replace(one, speedups=(speed,))


@pytest.mark.slow
def test_what_fixed_won_runs_fixed(paced_network, pixels, tmp_path):
  network = of_fixed(paced_network)
  assert network.default_execution() == "fixed"
  kept = np.asarray(network(pixels).kept)
  np.testing.assert_array_equal(kept, [network.counts[0]] * len(pixels))
  path = tmp_path / "net.zip"
  note = network.export(path, "stablehlo", [1])
  assert (note["execution"], note["counts"]) == ("fixed", [list(network.counts[0])])
  np.testing.assert_array_equal(load_artifact(path)(pixels[:2])[1], kept[:2])
  masked = network.export(path, "stablehlo", [1], execution="masked")
  assert masked["execution"] == "masked"


def test_speeds_compile_nothing_anew(paced_network):
  rows = [paced_network.at_speedup(asked) for asked in (1.5, 1.2)]
  structures = {str(jax.tree.structure(one.for_execution("masked"))) for one in rows}
  assert len(structures) == 1
  assert of_fixed(paced_network).for_execution("fixed").counts == rows[0].counts


def test_the_same_again_gives_the_same(paced_network, pixels, monkeypatch):
  paced.install(monkeypatch)
  again = tiny.network(ARCH).calibrate(pixels, speedup=[1.5, 1.2, 1.8], batch=8)
  assert again == paced_network


def test_other_thresholds_are_of_no_speed(paced_network, pixels):
  assert paced_network.dense.speedups == ()
  assert paced_network.with_counts([9, 5, 2]).speedups == ()
  assert paced_network.with_thresholds([0.1] * 3).speedups == ()
  assert paced_network.at(paced_network.budgets[1]).speedups == ()
  assert paced_network.calibrate(pixels, 0.7).speedups == ()


def test_one_speed_sets_the_stage_weights_that_it_was_found_with(pixels, monkeypatch):
  paced.install(monkeypatch)
  network = tiny.network(ARCH).calibrate(pixels, speedup=1.5, batch=8)
  (speed,) = network.speedups
  assert network.budgets == ()
  ratio = np.array(speed.counts) / ARCH.patches
  exponents = np.array(network.arch.stage_exponents)
  r = ratio[0] ** (1 / exponents[0])
  np.testing.assert_allclose(ratio, r**exponents, atol=1.1 / ARCH.patches)


def test_weights_say_what_they_were_calibrated_for(paced_network, tmp_path):
  for network in (paced_network, paced_network.at_speedup(1.8)):
    path = tmp_path / "fast.safetensors"
    network.save(path)
    loaded = load(path)
    assert loaded.speedups == network.speedups
    assert loaded == network
  described = paced_network.describe()["speedups"]
  assert [d["asked"] for d in described] == [1.5, 1.2, 1.8]
  assert {*described[0]} == {field.name for field in dataclasses.fields(Speed)}
  assert described[0]["device"] == "made up"


def test_images_of_another_size_are_of_no_speed(paced_network, tmp_path):
  path = tmp_path / "fast.safetensors"
  paced_network.save(path)
  larger = dataclasses.replace(paced_network.arch, image_size=48)
  assert load(path, larger, resize=True).speedups == ()


def test_a_file_with_speeds_of_other_rows_is_named(paced_network, tmp_path):
  path = tmp_path / "fast.safetensors"
  described = paced_network.describe()
  described |= {"speedups": described["speedups"][:2]}
  saving.save(path, paced_network.params, described, arch=paced_network.arch)
  with pytest.raises(InputError, match=r"fast\.safetensors: it has 2 speedups for 3 rows"):
    load(path)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"asked": 0.5}, r"speedups: \[0\]\.asked is 0\.5, expected at least 1"),
    ({"reached": "fast"}, r"\[0\]\.reached is 'fast', expected a finite number"),
    ({"counts": None}, r"\[0\]\.counts is None, expected a list"),
    ({"budget": 2.0}, r"\[0\]\.budget is 2\.0, expected at most 1"),
    ({"execution": "os:system"}, r"\[0\]\.execution is 'os:system', expected .*fixed"),
  ],
)
def test_files_that_say_something_else_are_refused(paced_network, tmp_path, change, said):
  network = paced_network.at_speedup(1.5)
  described = network.describe()
  described["speedups"] = [described["speedups"][0] | change]
  path = tmp_path / "w.safetensors"
  saving.save(path, network.params, described, arch=network.arch)
  with pytest.raises(InputError, match=said):
    load(path)


class Untouchable:
  """Images that must not be looked at."""

  def __iter__(self):
    raise AssertionError("images were read")


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({"speedup": 1}, "speed-up 1: expected a factor above 1 over"),
    ({"speedup": 0.5}, r"speed-up 0\.5: expected"),
    ({"speedup": float("nan")}, "speed-up nan: expected"),
    ({"speedup": float("inf")}, "speed-up inf: expected"),
    ({"speedup": "1.5"}, r"speed-up '1\.5' is not a number"),
    ({"speedup": True}, "speed-up True is not a number"),
    ({"speedup": [1.5, None]}, "speed-up None is not a number"),
    ({"speedup": []}, "expected one or more"),
    ({"speedup": []}, "no speed-ups: expected one or more"),
    ({"speedup": [1.5, 1.8, 1.5]}, r"speed-ups 1\.5, 1\.8, 1\.5: expected one or more dif"),
    (
      {"speedup": 1.5, "budget": 0.5},
      "both budget and speedup are given: Network.calibrate expects one",
    ),
    (
      {},
      "budget None is not a number, and no speedup is given either: Network.calibrate expects one",
    ),
    ({"speedup": 1.5, "batch": 0}, "batch 0 of a speed-up: expected"),
    ({"speedup": 1.5, "batch": 2.5}, r"batch 2\.5 of a speed-up: expected"),
    ({"speedup": 1.5, "seed": -1}, "seed -1 of a speed-up: expected"),
  ],
)
def test_bad_input_is_refused_before_any_work(given, said, monkeypatch):
  monkeypatch.setattr("asvit_jax.pacing.cache.load_or_measure", None)
  with pytest.raises(InputError, match=said) as error:
    tiny.network(ARCH).calibrate(Untouchable(), **given)
  assert "\n" not in str(error.value)


def test_a_network_that_prunes_nowhere_has_no_speed():
  with pytest.raises(InputError, match="prunes nowhere: prune_before is empty"):
    tiny.network(ARCH.dense).calibrate(Untouchable(), speedup=1.5)


def test_numbers_of_numpy_do():
  assert speeds.asked(np.float32(1.5)) == (1.5,)
  assert speeds.asked(np.array([1.5, 2.0])) == (1.5, 2.0)


def test_speeds_that_are_not_known_are_named(paced_network):
  expected = r"speed-up 1\.6: the network was calibrated for 1\.5, 1\.2, 1\.8: give one"
  with pytest.raises(InputError, match=expected):
    paced_network.at_speedup(1.6)
  with pytest.raises(InputError, match=r"speed-up 1\.6: the network was calibrated for none"):
    tiny.network(ARCH).at_speedup(1.6)


@pytest.mark.parametrize("speedups", [("1.5",), None, 3])
def test_a_network_holds_speeds_of_its_own_rows_only(paced_network, speedups):
  with pytest.raises(InputError, match="the speedups of a network are"):
    dataclasses.replace(paced_network, speedups=speedups)
  with pytest.raises(InputError, match="a `Speed` for each row"):
    dataclasses.replace(paced_network, speedups=paced_network.speedups[:2])


@pytest.mark.slow
def test_a_speed_is_reached_on_this_device(tmp_path, monkeypatch):
  """All of it as it is: what comes out is what a speed needs, however busy this machine is."""
  monkeypatch.setenv("ASVIT_CACHE", str(tmp_path))
  images = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), dtype=np.uint8)
  network = tiny.network(LARGER)
  found = network.calibrate(images, speedup=1.1, batch=8)
  (speed,) = found.speedups
  assert speed.execution in running.PACED
  assert 0 < speed.budget < 1
  assert speed.reached > 0
  assert isinstance(found, Network)
  assert len(list((tmp_path / "latency").iterdir())) == 1
  assert np.asarray(found(images).kept).shape == (8, 1)
