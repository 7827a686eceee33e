"""The counts of a network: where they come from, what is none, how they go with the weights."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.network import load

ARCH = tiny.arch(depth=4, prune_before=(1, 2, 3))
IMAGES = tiny.images(ARCH, 6)
DENSE = tiny.network(ARCH).dense


@pytest.fixture(scope="module")
def network():
  """Calibrated."""
  return DENSE.calibrate(IMAGES, 0.6)


@pytest.fixture(scope="module")
def dial():
  """Calibrated for two budgets."""
  return DENSE.calibrate(IMAGES, (0.8, 0.5))


def test_calibration_counts_the_mean_of_each_stage(network, dial):
  for one in (network, dial.at(0.8), dial.at(0.5)):
    kept = np.asarray(one(IMAGES, "masked").kept)
    assert one.counts == (tuple(kept.mean(axis=0).round().astype(int).tolist()),)
    assert one.counts == one.mean_counts(IMAGES)
  assert dial.counts == dial.mean_counts(IMAGES) == (dial.at(0.8).counts[0], dial.at(0.5).counts[0])
  between = dial.at(0.65)
  expected = np.round(np.mean(dial.counts, axis=0))
  np.testing.assert_array_equal(between.counts, [expected])


@pytest.mark.slow
def test_it_runs_at_its_counts_and_a_dial_at_those_of_its_first_budget(network, dial):
  for one, row in ((network, network.counts[0]), (dial, dial.counts[0])):
    applied = jax.jit(lambda network, images: network.apply(images, "fixed"))
    for outputs in (one(IMAGES, "fixed"), applied(one, IMAGES)):
      np.testing.assert_array_equal(outputs.kept, [row] * len(IMAGES))
  network.warm_up([2], "fixed")
  given = network.with_counts([9, 4, 1])
  assert given.counts == ((9, 4, 1),)
  np.testing.assert_array_equal(given(IMAGES, "fixed").kept[0], [9, 4, 1])
  assert given != network


def test_what_changes_thresholds_does_not_keep_the_counts(network, dial):
  assert network.dense.counts == ()
  assert network.with_thresholds(network.params["thresholds"]).counts == ()
  assert network.with_params(network.params).counts == network.counts
  traced = jax.eval_shape(lambda network, budget: network.at(budget), dial, 0.6)
  assert traced.counts == ()


def test_other_executions_compile_once_for_all_counts(network):
  traced = []

  @jax.jit
  def run(network, images):
    traced.append(network.counts)
    return network.apply(images, "masked").logits

  for counts in ((9, 4, 1), (8, 4, 1)):
    run(network.with_counts(counts).for_execution("masked"), IMAGES)
  assert traced == [()]


@pytest.mark.parametrize("metadata", [False, True])
def test_they_are_saved_and_loaded(network, dial, tmp_path, metadata):
  for one in (network, dial, network.with_counts(())):
    path = tmp_path / "w.safetensors"
    one.save(path, thresholds_as_metadata=metadata)
    assert load(path).counts == one.counts
    assert ("counts" in one.describe()) == bool(one.counts)
  assert network.describe()["counts"] == [list(network.counts[0])]


def test_of_images_of_another_size_they_are_not_known(network, tmp_path, capsys):
  path = tmp_path / "w.safetensors"
  network.save(path)
  larger = load(path, dataclasses.replace(ARCH, image_size=48), resize=True)
  assert larger.prunes
  assert larger.counts == ()
  assert load(path, image_size=48) == larger
  assert load(path, image_size=(48, 32)).arch.image_size == (48, 32)
  with pytest.raises(InputError, match="image size 47 is not a multiple of patch size"):
    load(path, image_size=47)
  assert "run it fixed" in capsys.readouterr().err


@pytest.mark.parametrize(
  "counts",
  [[[9, 4]], [[9, 4, 5]], [[17, 4, 1]], [[-1, -1, -1]], [[9, 4, 1], [8, 3, 1]], [[9, 4, 1.5]], "9"],
)
def test_bad_counts_in_a_file_are_one_error(network, tmp_path, counts):
  path = tmp_path / "w.safetensors"
  network.save(path)
  tensors = safetensors.numpy.load_file(path)
  metadata = {"asvit_jax": json.dumps(network.describe() | {"counts": counts})}
  safetensors.numpy.save_file(tensors, path, metadata)
  with pytest.raises(InputError, match=r"w\.safetensors.*counts") as caught:
    load(path)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "counts",
  [
    *((9, 4), (9, 4, 5), (17, 4, 1), (9, 4, -1), (9.0, 4.0, 1.0), (True, True, False), 9, "941"),
    *([(9, 4, 1), (8, 4, 1)], [(9, 4, 1), (8, 4)], {9: 4}, (9, 4, None), np.zeros((1, 1, 3), int)),
    *((10**30, 4, 1), (np.uint64(2**63), 4, 1)),
  ],
)
def test_what_are_no_counts_is_refused(network, counts):
  with pytest.raises(InputError, match=r"the counts of a network.*expected whole numbers, one for"):
    network.with_counts(counts)


def test_no_counts_are_none(network):
  for none in ((), None, [], np.zeros(0, int)):
    assert network.with_counts(none).counts == ()


def test_without_counts_or_thresholds_it_says_what_to_do(network):
  unknown = network.with_counts(())
  for call in (unknown, unknown.apply):
    with pytest.raises(InputError, match=r"--calibrate BUDGET .*--counts N,N"):
      call(IMAGES, "fixed")
  with pytest.raises(InputError, match="has no thresholds"):
    DENSE(IMAGES, "fixed")
  with pytest.raises(InputError, match="counts for a network without thresholds"):
    DENSE.with_counts((9, 4, 1))
  with pytest.raises(InputError, match="has no thresholds"):
    DENSE.mean_counts(IMAGES)
