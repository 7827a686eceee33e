import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax import pruning

SCORES = jnp.asarray([0.0, 0.00995, 0.01, 0.0101, 0.5], jnp.float32)
THRESHOLD = jnp.asarray(0.01, jnp.float32)


def test_token_scores_of_an_example_by_hand():
  # Two tokens, two heads. Norms 5 and 0: only the first head counts. Norms 1 and 3: a quarter of
  # the first and three quarters of the second.
  context = jnp.asarray([[[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, -3.0]]])
  class_attention = jnp.asarray([[0.2, 0.9], [0.4, 0.8]])
  expected = [0.2, 0.25 * 0.4 + 0.75 * 0.8]
  np.testing.assert_allclose(pruning.token_scores(class_attention, context), expected, rtol=1e-6)


def test_token_scores_do_not_depend_on_the_scale_of_the_context():
  rng = np.random.default_rng(0)
  context = jnp.asarray(rng.standard_normal((4, 3, 5)), jnp.float32)
  attention = jnp.asarray(rng.uniform(size=(4, 3)), jnp.float32)
  np.testing.assert_allclose(
    pruning.token_scores(attention, 100 * context),
    pruning.token_scores(attention, context),
    rtol=1e-5,
  )


def test_hard_gate_keeps_exactly_what_exceeds_the_threshold():
  assert pruning.hard_gate(SCORES, THRESHOLD).tolist() == [0, 0, 0, 1, 1]


def test_straight_through_gate_is_hard_forward():
  np.testing.assert_allclose(
    pruning.straight_through_gate(SCORES, THRESHOLD),
    pruning.hard_gate(SCORES, THRESHOLD),
    atol=1e-7,
  )


@pytest.mark.parametrize("temperature", [1e-4, 0.05])
def test_straight_through_gate_has_the_gradient_of_the_soft_gate(temperature):
  weights = jnp.arange(1.0, 6.0)

  def grads(gate):
    return jax.grad(lambda s, t: (weights * gate(s, t, temperature)).sum(), (0, 1))(
      SCORES, THRESHOLD
    )

  for ours, soft in zip(
    grads(pruning.straight_through_gate), grads(pruning.soft_gate), strict=True
  ):
    np.testing.assert_array_equal(ours, soft)
    assert np.abs(ours).max() > 0


def test_soft_gate_is_a_sigmoid_of_the_distance_in_temperatures():
  soft = pruning.soft_gate(THRESHOLD + jnp.asarray([-2e-4, 0.0, 1e-4]), THRESHOLD)
  np.testing.assert_allclose(soft, 1 / (1 + np.exp([2.0, 0.0, -1.0])), rtol=1e-4)


def test_initial_thresholds_are_thousandths():
  np.testing.assert_allclose(pruning.initial_thresholds(3), [0.001, 0.002, 0.003], rtol=1e-6)
