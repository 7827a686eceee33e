"""Networks whose programs contain infinities, in TFLite, whose converter makes them finite."""

import numpy as np
import pytest
import tiny

from asvit_jax.export import verification
from asvit_jax.export.artifacts import load_artifact

COST = dict(score="merge_cost", reduction="merge_tokens", score_exponents=(0.5, 1.0, 1.0, 1.0))
ABOVE_ALL = [1e9] * 3


@pytest.mark.external
@pytest.mark.parametrize(
  ("changes", "thresholds"),
  [(COST, [0.2, 0.4, 0.6]), (dict(pool="avg"), ABOVE_ALL), (tiny.LV, ABOVE_ALL)],
)
def test_a_masked_program_keeps_what_the_network_keeps(tmp_path, changes, thresholds):
  pytest.importorskip("tensorflow")
  network = tiny.network(tiny.arch(**changes)).with_thresholds(thresholds)
  images = verification.sample_images(network.arch.image_size)
  network.export(tmp_path / "net.tflite", "tflite")
  logits, kept = load_artifact(tmp_path / "net.tflite")(images)
  expected = network(images, "masked")
  np.testing.assert_array_equal(kept, expected.kept)
  np.testing.assert_allclose(logits, expected.logits, atol=1e-4)
  if thresholds is ABOVE_ALL:
    assert (kept == network.arch.least_patches).all()
  else:
    assert len(np.unique(kept)) > 4
