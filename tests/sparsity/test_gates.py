import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvit_jax.sparsity import gates

SCORES = jnp.asarray([0.0, 0.00995, 0.01, 0.0101, 0.5], jnp.float32)
THRESHOLD = jnp.asarray(0.01, jnp.float32)


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
