import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax.sparsity import gates

SCORES = jnp.asarray([0.0, 0.00995, 0.01, 0.0101, 0.5], jnp.float32)
THRESHOLD = jnp.asarray(0.01, jnp.float32)
INF = np.inf


def test_hard_gate_keeps_exactly_what_exceeds_the_threshold():
  assert gates.hard_gate(SCORES, THRESHOLD).tolist() == [0, 0, 0, 1, 1]


def test_straight_through_gate_is_hard_forward():
  np.testing.assert_allclose(
    gates.straight_through_gate(SCORES, THRESHOLD),
    gates.hard_gate(SCORES, THRESHOLD),
    atol=1e-7,
  )


@pytest.mark.parametrize("temperature", [1e-4, 0.05])
def test_straight_through_gate_has_the_gradient_of_the_soft_gate(temperature):
  weights = jnp.arange(1.0, 6.0)

  def grads(gate):
    return jax.grad(lambda s, t: (weights * gate(s, t, temperature)).sum(), (0, 1))(
      SCORES, THRESHOLD
    )

  for ours, soft in zip(grads(gates.straight_through_gate), grads(gates.soft_gate), strict=True):
    np.testing.assert_array_equal(ours, soft)
    assert np.abs(ours).max() > 0


def test_soft_gate_is_a_sigmoid_of_the_distance_in_temperatures():
  soft = gates.soft_gate(THRESHOLD + jnp.asarray([-2e-4, 0.0, 1e-4]), THRESHOLD)
  np.testing.assert_allclose(soft, 1 / (1 + np.exp([2.0, 0.0, -1.0])), rtol=1e-4)


def kept_by_hand(scores, present, threshold, multiple):
  """One image: a set of indices."""
  there = [i for i in range(len(scores)) if present[i]]
  over = [i for i in there if scores[i] > threshold]
  wanted = min(len(there), -(-len(over) // multiple) * multiple)
  return set(sorted(there, key=lambda i: (-scores[i], i))[:wanted])


@pytest.mark.parametrize("multiple", [1, 3, 4, 100])
def test_over_a_threshold_kept_by_hand(multiple):
  rng = np.random.default_rng(multiple)
  scores = rng.integers(0, 8, (20, 13)).astype(np.float32)  # with ties
  scores[:, 0] = INF
  present = rng.random((20, 13)) < 0.7
  present[:, 0] = True
  keep = np.asarray(gates.keep_above(jnp.asarray(scores), jnp.asarray(present), 4.0, multiple))
  for i in range(20):
    assert set(np.flatnonzero(keep[i])) == kept_by_hand(scores[i], present[i], 4.0, multiple)


def test_keep_best_keeps_the_given_number_or_all_tokens_left():
  scores = jnp.asarray([[INF, 3.0, 9.0, 3.0, 7.0], [INF, 1.0, 2.0, 3.0, 4.0]])
  present = jnp.asarray([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
  kept = gates.keep_best(scores, present, 3)
  np.testing.assert_array_equal(kept, [[1, 1, 0, 0, 1], [1, 0, 0, 1, 1]])  # of equal ones the first
  kept = gates.keep_best(scores, present, jnp.asarray([9, 0]))
  np.testing.assert_array_equal(kept, [[1, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
