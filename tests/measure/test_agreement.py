"""What counts as rounding, and what does not."""

import dataclasses

import numpy as np
import pytest

from asvit_jax.measure.agreement import TOLERANCES, Expected, Tolerance

LIKE = Tolerance(scores=0.1, logits=0.05, correlation=0.9)


def expected():
  """Three images of six tokens; thresholds 0 and 0.5."""
  rng = np.random.default_rng(0)
  scores = rng.choice([-2.0, -1.0, 1.0, 2.0], (3, 2, 6))
  scores[:, :, 0] = 1.0
  scores[0, 0, 1] = 0.01  # hardly above
  thresholds = np.array([0.0, 0.5])
  keep = np.logical_and.accumulate(scores > thresholds[:, None], axis=1)
  return Expected(keep, scores, thresholds, rng.standard_normal((3, 8)))


def test_the_same_agrees():
  one = expected()
  found = one.compare(one.keep.astype(np.float32), one.logits, LIKE)
  assert (found["agrees"], found["same"], found["undecided"], found["wrong"]) == (True, 3, 0, 0)
  assert found["logits_error"] == found["furthest"] == 0
  assert found["correlation"] == pytest.approx(1)


def test_a_token_close_to_the_threshold_is_decided_by_rounding():
  one = expected()
  keep = one.keep.copy()
  keep[0, :, 1] = ~keep[0, :, 1]
  keep[0, 1, 0] = False  # what comes after is not compared
  found = one.compare(keep, one.logits, LIKE)
  assert (found["agrees"], found["same"], found["undecided"], found["wrong"]) == (True, 2, 1, 0)
  assert 0 < found["furthest"] < 0.02
  strict = dataclasses.replace(LIKE, scores=1e-4)
  assert one.compare(keep, one.logits, strict)["wrong"] == 1


@pytest.mark.parametrize("stage", [0, 1])
def test_any_other_token_is_wrong(stage):
  one = expected()
  keep = one.keep.copy()
  keep[1, stage:, 0] = False
  found = one.compare(keep, one.logits, LIKE)
  assert (found["agrees"], found["same"], found["wrong"]) == (False, 2, 1)
  assert found["furthest"] > 0.3


def test_logits_of_images_with_the_same_tokens_are_compared():
  one = expected()
  logits = one.logits.copy()
  logits[2, 3] += 0.04 * logits[2].std()
  assert one.compare(one.keep, logits, LIKE)["agrees"]
  logits[2, 3] += 0.04 * logits[2].std()
  assert not one.compare(one.keep, logits, LIKE)["agrees"]


def test_an_undecided_image_must_still_predict_alike():
  one = expected()
  keep, logits = one.keep.copy(), one.logits.copy()
  keep[0, :, 1] = ~keep[0, :, 1]
  logits[0] = logits[0] + 0.1 * logits[0].std() * np.sin(np.arange(8))
  assert one.compare(keep, logits, LIKE)["agrees"]
  logits[0] = logits[0, ::-1]
  assert not one.compare(keep, logits, LIKE)["agrees"]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_what_is_not_finite_never_agrees(dtype):
  one = expected()
  for value in (np.nan, np.inf):
    logits = one.logits.copy()
    logits[0, 0] = value
    found = one.compare(one.keep, logits, TOLERANCES[dtype])
    assert (found["agrees"], found["logits_error"]) == (False, None)
