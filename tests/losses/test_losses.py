import jax.numpy as jnp
import numpy as np

from asvit_jax.losses.criteria import CROSS_ENTROPY, smooth_labels
from asvit_jax.losses.terms import distance, divergence

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 4)) * 3
TEACHER = RNG.standard_normal((6, 4)) * 3


def softmax(x):
  e = np.exp(x)
  return e / e.sum(axis=-1, keepdims=True)


def test_smoothed_labels_share_the_smoothing_among_all_classes():
  expected = [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
  np.testing.assert_allclose(smooth_labels(jnp.asarray([2, 0]), 4, 0.1), expected, rtol=1e-6)
  one_hot = smooth_labels(jnp.asarray([1]), 4, 0.0)
  np.testing.assert_array_equal(one_hot, [[0, 1, 0, 0]])


def test_cross_entropy_is_the_mean_negative_log_likelihood_under_the_targets():
  targets = softmax(RNG.standard_normal((6, 4)))
  expected = -(targets * np.log(softmax(LOGITS))).sum() / 6
  np.testing.assert_allclose(CROSS_ENTROPY(LOGITS, targets), expected, rtol=1e-5)


def test_distillation_is_the_divergence_of_the_student_from_the_teacher_by_row():
  p, q = softmax(TEACHER), softmax(LOGITS)
  expected = (p * np.log(p / q)).sum(axis=1)
  np.testing.assert_allclose(divergence(LOGITS, TEACHER), expected, rtol=1e-5)
  reverse = (q * np.log(q / p)).sum(axis=1)
  assert np.abs(reverse - expected).min() > 0.01  # so the test tells the two directions apart
  np.testing.assert_allclose(divergence(TEACHER + 7, TEACHER), 0, atol=1e-6)


def test_distillation_keeps_every_axis_but_the_last():
  by_token = divergence(LOGITS.reshape(2, 3, 4), TEACHER.reshape(2, 3, 4))
  expected = divergence(LOGITS, TEACHER).reshape(2, 3)
  np.testing.assert_allclose(by_token, expected, rtol=1e-6)


def test_budget_is_the_distance_on_either_side():
  assert distance(3.0, 2.5) == 0.5
  assert distance(2.0, 2.5) == 0.5
