"""Criteria against NumPy in float64, and the weights of classes."""

import jax
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.losses import class_weights, criteria
from asvit_jax.losses.criteria import Criterion

RNG = np.random.default_rng(3)
LOGITS = RNG.standard_normal((6, 4)) * 3
SOFT = RNG.dirichlet(np.ones(4), 6)
WEIGHTS = (0.5, 2.0, 0.0, 1.0)
LIKELIHOOD = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
SURE, UNSURE = np.log(1 / (1 + np.exp(-LOGITS))), np.log(1 / (1 + np.exp(LOGITS)))


def binary(targets):
  return -(targets * SURE + (1 - targets) * UNSURE)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
  ("name", "arguments", "each"),
  [
    ("cross_entropy", {}, -SOFT * LIKELIHOOD),
    ("focal", {"gamma": 0.0}, -SOFT * LIKELIHOOD),
    ("focal", {}, -SOFT * (1 - np.exp(LIKELIHOOD)) ** 2 * LIKELIHOOD),
    ("focal", {"gamma": 0.5}, -SOFT * (1 - np.exp(LIKELIHOOD)) ** 0.5 * LIKELIHOOD),
    ("bce", {}, binary(SOFT) / 4),
    ("bce", {"sum_classes": True}, binary(SOFT)),
    ("bce", {"target_threshold": 0.25}, binary(SOFT > 0.25) / 4),
  ],
)
def test_a_criterion_is_its_formula(name, arguments, each, weights):
  criterion = Criterion(name, arguments, weights)
  expected = (each * (1.0 if weights is None else np.array(weights))).sum(axis=1).mean()
  assert float(criterion(LOGITS, SOFT)) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_has_a_gradient_where_a_prediction_is_sure_and_right():
  logits = np.array([[200.0, 0.0], [20.0, 0.0], [-200.0, 0.0]], np.float32)
  targets = np.array([[1.0, 0.0]] * 3, np.float32)
  for gamma in (0.5, 2.0):
    grads = jax.grad(Criterion("focal", {"gamma": gamma}))(logits, targets)
    assert np.isfinite(grads).all()


class Source:
  classes = ("ant", "bee", "cat")

  def __init__(self, *labels, known=False):
    self._examples = [{"label": label} for label in labels]
    if known:
      self.labels = np.array(labels)

  def __len__(self):
    return len(self._examples)

  def __getitem__(self, index):
    return self._examples[index]


def test_weights_of_classes_are_balanced_or_given(tmp_path):
  for known in (True, False):
    source = Source(0, 0, 0, 1, 2, 2, known=known)
    assert class_weights.of("balanced", 3, source) == pytest.approx((2 / 3, 2.0, 1.0))
  assert class_weights.of("", 3, None) is None
  assert class_weights.of("1,0.5,2", 3, None) == (1.0, 0.5, 2.0)
  (tmp_path / "weights.txt").write_text("1\n0.5\n2e0\n")
  assert class_weights.of(str(tmp_path / "weights.txt"), 3, None) == (1.0, 0.5, 2.0)
  with pytest.raises(InputError, match="no training image of bee: give numbers"):
    class_weights.of("balanced", 3, Source(0, 2))
  for wrong in ("1,2", "1,2,x", "1,-2,3", "0,0,0", "1,2,nan", "balance"):
    with pytest.raises(InputError, match=f"class_weights '{wrong}': expected balanced, or a num"):
      class_weights.check(wrong, 3)


@pytest.mark.parametrize(
  ("name", "arguments", "said"),
  [
    ("focl", "", "criterion.name 'focl' is not known: choose from .*did you mean 'focal'"),
    ("focal", "gama=1", "criterion.arguments: gama is not known; it takes gamma; did you mean 'ga"),
    ("focal", "gamma", "criterion.arguments 'gamma' cannot be read"),
    ("focal", "gamma='x'", "'focal' cannot be run with criterion.arguments"),
    ("bce", "weights=1", "weights is not known; it takes target_threshold, sum_classes"),
    ("optax:safe_norm", "", "cannot be run|does not return"),
  ],
)
def test_what_is_no_criterion_is_refused(name, arguments, said):
  with pytest.raises(InputError, match=said):
    config = tiny.config("", **{"criterion.name": name, "criterion.arguments": arguments})
    criteria.check(tiny.plan(config).criterion)
