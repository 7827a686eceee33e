"""What a calibration and a search reached: said in the same way by both, on their images."""

import copy
import dataclasses

import jax
import numpy as np
import pytest
import tiny

from asvit_jax.network import Network

ARCH = tiny.TRAINED
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def calibrated():
  return tiny.network(ARCH).calibrate(IMAGES, (0.8, 0.6))


def test_a_calibration_says_the_gmacs_and_counts_of_its_thresholds(calibrated):
  assert [each.budget for each in calibrated.reached] == [0.8, 0.6]
  for each, counts in zip(calibrated.reached, calibrated.counts, strict=True):
    kept = np.asarray(calibrated.at(each.budget)(IMAGES, "masked").kept)
    assert each.gmacs == pytest.approx(calibrated.gmacs(kept).mean(), rel=1e-5)
    assert each.share == pytest.approx(each.gmacs / calibrated.dense_gmacs)
    assert each.share == pytest.approx(each.budget, abs=0.02)
    assert each.counts == counts
    assert (each.divergence, each.speed) == (None, None)


def test_a_search_says_it_in_the_same_form(capsys):
  network, found = tiny.network(ARCH).search(IMAGES, 0.6, trials=3)
  (searched,) = network.reached
  assert searched.divergence == (found.divergence, found.divergence_before)
  assert (searched.gmacs, searched.counts) == (found.gmacs, found.counts)
  (again,) = network.calibrate(IMAGES, 0.6).reached
  assert again.gmacs == pytest.approx(searched.gmacs, rel=0.02)
  lines = capsys.readouterr().err.splitlines()
  assert f"searched: {searched}" in lines
  assert f"calibrated: {again}" in lines
  for each in (searched, again):
    assert str(each).startswith(f"budget 0.6: reached {each.share:.4f} of the dense GMACs (")


def test_it_belongs_to_that_network_alone_and_is_not_compared(calibrated):
  fields = {f.name: getattr(calibrated, f.name) for f in dataclasses.fields(Network) if f.init}
  same = Network(**fields)
  assert same == calibrated
  assert hash(same) == hash(calibrated)
  assert copy.copy(calibrated).reached == calibrated.reached
  for changed in (same, calibrated.at(0.7), calibrated.dense, jax.tree.map(np.asarray, calibrated)):
    assert changed.reached == ()
  assert "reached" not in calibrated.describe()
